# The graph of the book: every notebook of a profile is executed by papermill, then jupyter-book renders the whole.
#
#   make book                                                     # book/tools/build.py: `notebooks`, then `book`
#   make book PROFILE=paper EXECUTOR=slurm                        # the same graph on a cluster
#   snakemake notebooks --cores 2 --config profile=tiny           # by hand
#
# A notebook is run again when its source, a module of lib that it imports (directly or not), data of such a module, one
# of its parameters or the version of a package that lib is built on has changed. Artifacts are addressed by what made
# them, so a notebook that follows another one (`after` in the profile) only waits for it: it finds the artifacts that fit
# its own parameters, or makes them. That is what `ancient` says below. One that `reads` the results of another is run
# again after it. Snakemake 9 does not look for changes behind an `ancient` input that is being remade, so the target
# `notebooks` is asked for until nothing is left to do.

import json
import sys
from glob import glob
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from book.tools.dependencies import Graph
from book.tools.packages import versions
from book.tools.profiles import profiles_of_book
from book.tools.site import stamp_of

PROFILE = str(config.get("profile", "tiny"))
HTML = str(config.get("html", "build/html"))
EXECUTED = "build/{profile}/notebooks/{notebook}.ipynb"
try:
    profiles = {profile.name: profile for profile in profiles_of_book(PROFILE)}
except ValueError as error:
    sys.exit(f"error: {error}")
graph = Graph()
NOTEBOOKS = [
    EXECUTED.format(profile=name, notebook=notebook) for name, profile in profiles.items() for notebook in profile.entries
]


def entry(wildcards):
    return profiles[wildcards.profile].entries[wildcards.notebook]


def files(*patterns):
    return sorted(path for pattern in patterns for path in glob(pattern, recursive=True) if Path(path).is_file())


localrules:  # on a cluster these run where `make book` was called: they need the network, or take seconds
    book,
    cover,
    vendor,


wildcard_constraints:
    profile="|".join(profiles),
    notebook="|".join({notebook for profile in profiles.values() for notebook in profile.entries}),


rule notebooks:
    input:
        NOTEBOOKS,


rule book:
    default_target: True
    input:
        notebooks=NOTEBOOKS,
        sources=files("notebooks/*.ipynb"),
        cover=f"build/{PROFILE}/cover.webp",
        vendor="build/vendor",
        prose=files("book/*.md", "book/*.bib", "book/_static/**", "book/_templates/**", "_config.yml", "_toc.yml"),
        model=files("assets/tiny/llava/*"),
        tools=[f"book/tools/{name}.py" for name in 
            ("render", "pages", "status", "site", "sanitise", "page_policy", "page_scripts")],
    output:
        str(stamp_of(profiles[PROFILE], Path(HTML)).relative_to(profiles[PROFILE].root)),
    params:
        profiles={name: profile.left_out for name, profile in profiles.items()},
    shell:
        "{sys.executable:q} -m book.tools.render --profile {PROFILE:q} --out={HTML:q} 2>&1"


rule notebook:
    input:
        source="notebooks/{notebook}.ipynb",
        code=lambda wildcards: graph.of_notebook(f"notebooks/{wildcards.notebook}.ipynb"),
        first=lambda wildcards: [
            ancient(EXECUTED.format(profile=wildcards.profile, notebook=name)) for name in entry(wildcards).after
        ],
        read=lambda wildcards: [
            EXECUTED.format(profile=wildcards.profile, notebook=name) for name in entry(wildcards).reads
        ],
    output:
        EXECUTED,
    params:
        values=lambda wildcards: json.dumps(profiles[wildcards.profile].parameters(wildcards.notebook), sort_keys=True),
        packages=json.dumps(versions(), sort_keys=True),
    threads: lambda wildcards: entry(wildcards).threads
    resources:
        mem_mb=lambda wildcards: entry(wildcards).memory_mb,
        gpu=lambda wildcards: entry(wildcards).gpus,
        runtime=lambda wildcards: entry(wildcards).runtime,
    shell:
        "{sys.executable:q} -m book.tools.run_notebook {wildcards.notebook} --profile {wildcards.profile}"
        " --threads {threads} 2>&1"


rule cover:
    input:
        "book/tools/cover.py",
        files("menagerie/world/*.py"),
    output:
        f"build/{PROFILE}/cover.webp",
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
