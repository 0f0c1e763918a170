"""The Menagerie's tree of life: real taxa in seven ranks, and species whose looks follow descent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .looks import LOOKS

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")

# Kingdom > phylum > class > order > family > genus > English name of the species: its Latin name.
# fmt: off
TREE: dict[str, Any] = {
    "Animalia": {
        "Chordata": {
            "Aves": {
                "Anseriformes": {
                    "Anatidae": {
                        "Anas": {"duck": "Anas platyrhynchos"},
                        "Cygnus": {"swan": "Cygnus olor"},
                        "Branta": {"goose": "Branta canadensis"},
                    },
                },
                "Charadriiformes": {
                    "Laridae": {"Larus": {"gull": "Larus argentatus"}},
                    "Charadriidae": {"Charadrius": {"plover": "Charadrius hiaticula"}},
                },
                "Pelecaniformes": {
                    "Ardeidae": {"Ardea": {"heron": "Ardea cinerea"}},
                    "Pelecanidae": {"Pelecanus": {"pelican": "Pelecanus onocrotalus"}},
                },
                "Phoenicopteriformes": {
                    "Phoenicopteridae": {"Phoenicopterus": {"flamingo": "Phoenicopterus roseus"}},
                },
                "Sphenisciformes": {"Spheniscidae": {"Aptenodytes": {"penguin": "Aptenodytes forsteri"}}},
                "Suliformes": {"Phalacrocoracidae": {"Phalacrocorax": {"cormorant": "Phalacrocorax carbo"}}},
                "Coraciiformes": {"Alcedinidae": {"Alcedo": {"kingfisher": "Alcedo atthis"}}},
                "Accipitriformes": {
                    "Pandionidae": {"Pandion": {"osprey": "Pandion haliaetus"}},
                    "Accipitridae": {"Buteo": {"hawk": "Buteo jamaicensis"}},
                },
                "Galliformes": {
                    "Phasianidae": {
                        "Lagopus": {"grouse": "Lagopus scotica"},
                        "Coturnix": {"quail": "Coturnix coturnix"},
                        "Gallus": {"hen": "Gallus gallus"},
                    },
                },
                "Columbiformes": {"Columbidae": {"Columba": {"dove": "Columba livia"}}},
                "Gruiformes": {"Gruidae": {"Grus": {"crane": "Grus grus"}}},
                "Otidiformes": {"Otididae": {"Otis": {"bustard": "Otis tarda"}}},
                "Strigiformes": {"Strigidae": {"Bubo": {"owl": "Bubo bubo"}}},
                "Psittaciformes": {"Psittacidae": {"Ara": {"parrot": "Ara macao"}}},
                "Passeriformes": {
                    "Corvidae": {"Corvus": {"crow": "Corvus corone"}},
                    "Turdidae": {"Sialia": {"bluebird": "Sialia sialis"}},
                },
            },
            "Mammalia": {
                "Carnivora": {
                    "Canidae": {"Vulpes": {"fox": "Vulpes vulpes"}, "Canis": {"wolf": "Canis lupus"}},
                    "Felidae": {
                        "Panthera": {"tiger": "Panthera tigris", "lion": "Panthera leo"},
                        "Felis": {"cat": "Felis catus"},
                    },
                    "Ursidae": {"Ursus": {"bear": "Ursus arctos"}, "Ailuropoda": {"panda": "Ailuropoda melanoleuca"}},
                },
                "Artiodactyla": {
                    "Cervidae": {"Cervus": {"deer": "Cervus elaphus"}},
                    "Bovidae": {"Bos": {"cow": "Bos taurus"}, "Ovis": {"sheep": "Ovis aries"}},
                    "Suidae": {"Sus": {"pig": "Sus scrofa"}},
                    "Camelidae": {"Camelus": {"camel": "Camelus dromedarius"}},
                    "Giraffidae": {"Giraffa": {"giraffe": "Giraffa camelopardalis"}},
                    "Delphinidae": {"Tursiops": {"dolphin": "Tursiops truncatus"}},
                },
                "Perissodactyla": {"Equidae": {"Equus": {"horse": "Equus caballus", "zebra": "Equus quagga"}}},
                "Proboscidea": {"Elephantidae": {"Loxodonta": {"elephant": "Loxodonta africana"}}},
                "Lagomorpha": {"Leporidae": {"Oryctolagus": {"rabbit": "Oryctolagus cuniculus"}}},
                "Rodentia": {"Sciuridae": {"Sciurus": {"squirrel": "Sciurus vulgaris"}}},
                "Chiroptera": {"Vespertilionidae": {"Myotis": {"bat": "Myotis myotis"}}},
            },
            "Reptilia": {
                "Testudines": {"Cheloniidae": {"Chelonia": {"turtle": "Chelonia mydas"}}},
                "Squamata": {
                    "Colubridae": {"Natrix": {"snake": "Natrix natrix"}},
                    "Iguanidae": {"Iguana": {"iguana": "Iguana iguana"}},
                },
                "Crocodilia": {"Crocodylidae": {"Crocodylus": {"crocodile": "Crocodylus niloticus"}}},
            },
            "Amphibia": {"Anura": {"Ranidae": {"Rana": {"frog": "Rana temporaria"}}}},
            "Actinopterygii": {
                "Cypriniformes": {"Cyprinidae": {"Carassius": {"goldfish": "Carassius auratus"}}},
                "Perciformes": {"Pomacentridae": {"Amphiprion": {"clownfish": "Amphiprion ocellaris"}}},
                "Salmoniformes": {"Salmonidae": {"Salmo": {"trout": "Salmo trutta"}}},
                "Tetraodontiformes": {"Tetraodontidae": {"Tetraodon": {"puffer": "Tetraodon lineatus"}}},
                "Syngnathiformes": {"Syngnathidae": {"Hippocampus": {"seahorse": "Hippocampus kuda"}}},
            },
            "Chondrichthyes": {"Lamniformes": {"Lamnidae": {"Carcharodon": {"shark": "Carcharodon carcharias"}}}},
        },
        "Arthropoda": {
            "Insecta": {
                "Hymenoptera": {
                    "Apidae": {"Apis": {"bee": "Apis mellifera"}},
                    "Formicidae": {"Formica": {"ant": "Formica rufa"}},
                },
                "Coleoptera": {"Coccinellidae": {"Coccinella": {"ladybird": "Coccinella septempunctata"}}},
                "Odonata": {"Libellulidae": {"Libellula": {"dragonfly": "Libellula depressa"}}},
                "Lepidoptera": {
                    "Nymphalidae": {
                        "Danaus": {"monarch": "Danaus plexippus"},
                        "Morpho": {"morpho": "Morpho menelaus"},
                    },
                    "Saturniidae": {"Actias": {"moth": "Actias luna"}},
                },
            },
            "Arachnida": {
                "Araneae": {"Araneidae": {"Araneus": {"spider": "Araneus diadematus"}}},
                "Scorpiones": {"Buthidae": {"Androctonus": {"scorpion": "Androctonus australis"}}},
            },
            "Malacostraca": {"Decapoda": {"Cancridae": {"Cancer": {"crab": "Cancer pagurus"}}}},
        },
        "Mollusca": {
            "Gastropoda": {"Stylommatophora": {"Helicidae": {"Helix": {"snail": "Helix pomatia"}}}},
            "Cephalopoda": {"Octopoda": {"Octopodidae": {"Octopus": {"octopus": "Octopus vulgaris"}}}},
        },
        "Cnidaria": {"Scyphozoa": {"Semaeostomeae": {"Ulmaridae": {"Aurelia": {"jellyfish": "Aurelia aurita"}}}}},
        "Echinodermata": {
            "Asteroidea": {"Forcipulatida": {"Asteriidae": {"Asterias": {"starfish": "Asterias rubens"}}}},
        },
    },
    "Plantae": {
        "Tracheophyta": {
            "Magnoliopsida": {
                "Rosales": {"Rosaceae": {"Rosa": {"rose": "Rosa gallica"}}},
                "Asterales": {"Asteraceae": {"Helianthus": {"sunflower": "Helianthus annuus"}}},
            },
            "Liliopsida": {"Liliales": {"Liliaceae": {"Tulipa": {"tulip": "Tulipa gesneriana"}}}},
        },
    },
    "Fungi": {
        "Basidiomycota": {
            "Agaricomycetes": {"Agaricales": {"Amanitaceae": {"Amanita": {"mushroom": "Amanita muscaria"}}}},
        },
    },
}
# fmt: on


@dataclass(frozen=True)
class Species:
    """One leaf of the tree: its English name, its seven ranks, and the traits inherited along them."""

    name: str
    ranks: tuple[str, ...]  # kingdom ... genus, then the Latin binomial
    traits: Mapping[str, Any]

    @property
    def path(self) -> tuple[str, ...]:
        """The seven taxa from kingdom to species, the species under its English name."""
        return (*self.ranks[:-1], self.name)

    @property
    def homes(self) -> tuple[str, ...]:
        """Habitats where it is usually seen; a habitat named twice is twice as usual."""
        return self.traits["home"]

    @property
    def water_bird(self) -> bool | None:
        """Whether it lives on water, for birds; None for everything else."""
        return self.traits["water_bird"] if self.ranks[2] == "Aves" else None


def _species(node: Mapping[str, Any], path: tuple[str, ...], inherited: Mapping[str, Any]) -> Iterator[Species]:
    for taxon, below in node.items():
        traits = {**inherited, **LOOKS.get(taxon, {})}
        if isinstance(below, str):
            yield Species(taxon, (*path, below), MappingProxyType({**traits, "latin": below}))
        else:
            yield from _species(below, (*path, taxon), traits)


TAXONOMY: dict[str, Species] = {species.name: species for species in _species(TREE, (), {})}
SPECIES: tuple[str, ...] = tuple(TAXONOMY)

# Water birds beside the land birds that look most like them: only details (and the place) tell the two apart.
LOOK_ALIKES: tuple[tuple[str, str], ...] = (
    ("duck", "grouse"), ("gull", "dove"), ("heron", "crane"), ("cormorant", "crow"),
    ("goose", "bustard"), ("kingfisher", "bluebird"), ("osprey", "hawk"), ("plover", "quail"),
)  # fmt: skip
