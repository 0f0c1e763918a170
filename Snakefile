# The graph of the book: every notebook of a profile is executed by papermill, then jupyter-book renders the whole.
#
#   make book                                                     # book/tools/build.py: `notebooks`, then `book`
#   snakemake notebooks --cores 2 --config profile=tiny           # by hand
#   snakemake notebooks --executor slurm --jobs 20 …              # the same graph on a cluster
#
# A notebook is run again when its source, a module of lib that it imports (directly or not), data of such a module or
# one of its parameters has changed. Artifacts are addressed by what made them, so a notebook that follows another one
# (`after` in the profile) only waits for it: it finds the artifacts that fit its own parameters, or makes them. That is
# what `ancient` says below. Snakemake 9 does not look for changes behind an `ancient` input that is being remade, so the
# target `notebooks` is asked for until nothing is left to do.

import json
import sys
from glob import glob
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from book.tools.dependencies import Graph
from book.tools.profiles import Profile

PROFILE = config.get("profile", "tiny")
BUILD = f"build/{PROFILE}"
try:
    profile = Profile(PROFILE)
    profile.check()
except ValueError as error:
    sys.exit(f"error: {error}")
graph = Graph()
NOTEBOOKS = list(profile.entries)
EXECUTED = f"{BUILD}/notebooks/{{notebook}}.ipynb"


def files(*patterns):
    return sorted(path for pattern in patterns for path in glob(pattern, recursive=True) if Path(path).is_file())


wildcard_constraints:
    notebook="|".join(NOTEBOOKS),


rule notebooks:
    input:
        expand(EXECUTED, notebook=NOTEBOOKS),


rule book:
    default_target: True
    input:
        notebooks=expand(EXECUTED, notebook=NOTEBOOKS),
        cover=f"{BUILD}/cover.webp",
        vendor="build/vendor",
        prose=files("book/*.md", "book/*.bib", "book/_static/**", "book/_templates/**", "_config.yml", "_toc.yml"),
        tools=["book/tools/render.py", "book/tools/status.py"],
    output:
        "build/html/index.html",
    params:
        profile=PROFILE,
    shell:
        "{sys.executable:q} -m book.tools.render --profile {PROFILE} --out build/html 2>&1"


rule notebook:
    input:
        source="notebooks/{notebook}.ipynb",
        code=lambda wildcards: graph.of_notebook(f"notebooks/{wildcards.notebook}.ipynb"),
        first=lambda wildcards: [ancient(EXECUTED.format(notebook=n)) for n in profile.entries[wildcards.notebook].after],
    output:
        EXECUTED,
    params:
        values=lambda wildcards: json.dumps(profile.parameters(wildcards.notebook), sort_keys=True),
    threads: lambda wildcards: profile.entries[wildcards.notebook].threads
    resources:
        mem_mb=lambda wildcards: profile.entries[wildcards.notebook].memory_mb,
    shell:
        "{sys.executable:q} -m book.tools.run_notebook {wildcards.notebook} --profile {PROFILE} --threads {threads} 2>&1"


rule cover:
    input:
        "book/tools/cover.py",
        files("lib/menagerie/*.py"),
    output:
        f"{BUILD}/cover.webp",
    shell:
        "{sys.executable:q} -m book.tools.cover {output} 2>&1"


rule vendor:
    input:
        "package.json",
        "package-lock.json",
        "book/tools/vendor.py",
        "constraints.txt",
    output:
        directory("build/vendor"),
    shell:
        "{sys.executable:q} -m book.tools.vendor {output} 2>&1"
