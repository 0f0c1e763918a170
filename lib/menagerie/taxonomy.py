"""The Menagerie's tree of life: real taxa in seven ranks, with looks that children inherit from their ancestors.

In `TREE` a dict-valued entry is a child taxon and any other entry is a trait. A species carries every trait of its
ancestors unless it (or a nearer ancestor) sets its own, so the closer two species are related the more alike they look.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Mapping

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")

HABITAT_NAMES = ("water", "forest", "snow", "desert", "meadow", "city", "night", "mountain", "beach", "swamp")

# Traits. plan: which drawing function; coat / second / third: colours; color: the name captions use for the coat;
# pattern: plain, striped, spotted, patched ...; home: typical habitats, most typical first; big: relative size.
# fmt: off
TREE: dict[str, Any] = {
    "Animalia": {"pattern": "plain", "big": 1.0, "second": "#f3ead8", "third": "#3a3230",
        "Chordata": {
            "Aves": {"plan": "bird", "neck": 0.15, "legs": 0.35, "plump": 0.5, "bill": "short", "bill_color": "#e8a33d",
                     "leg_color": "#c98a3a", "tail": 0.2, "crest": "none", "water_bird": False,
                "Anseriformes": {"Anatidae": {"bill": "flat", "legs": 0.18, "neck": 0.3, "plump": 0.55, "water_bird": True,
                                              "home": ("water", "swamp"), "leg_color": "#e0812e",
                    "Anas": {"duck": {"latin": "Anas platyrhynchos", "color": "brown", "coat": "#8f6b4c", "second": "#6f5038", "head": "#2f6b45", "collar": "#f4efe4", "third": "#d9c7a7"}},
                    "Cygnus": {"swan": {"latin": "Cygnus olor", "color": "white", "coat": "#f7f5f0", "second": "#e4e2e0", "head": "#f7f5f0", "neck": 0.95, "curve": True, "bill_color": "#e8772e", "big": 1.1, "third": "#ffffff"}},
                    "Branta": {"goose": {"latin": "Branta canadensis", "color": "brown", "coat": "#94785a", "second": "#77604a", "head": "#2b2928", "neck_color": "#2b2928", "cheek": "#f5f1e8", "neck": 0.62, "bill_color": "#35302d", "leg_color": "#3d3733", "legs": 0.28, "third": "#d8cbb4"}},
                }},
                "Charadriiformes": {"home": ("beach", "water"), "water_bird": True,
                    "Laridae": {"Larus": {"gull": {"latin": "Larus argentatus", "color": "white", "coat": "#f1f1ef", "second": "#a9b4bf", "head": "#f7f6f3", "bill_color": "#efb52c", "leg_color": "#e6a07f", "tail": 0.3, "third": "#2f3136", "bill": "medium"}}},
                    "Charadriidae": {"Charadrius": {"plover": {"latin": "Charadrius hiaticula", "color": "brown", "coat": "#b08e66", "second": "#96764f", "head": "#a9885f", "belly": "#f6f1e6", "collar": "#2d2a2a", "plump": 0.7, "legs": 0.4, "big": 0.8, "leg_color": "#e58c34", "bill": "short"}}},
                },
                "Pelecaniformes": {"water_bird": True, "home": ("swamp", "water"),
                    "Ardeidae": {"Ardea": {"heron": {"latin": "Ardea cinerea", "color": "gray", "coat": "#9aa6b1", "second": "#7b8894", "head": "#eceef0", "neck_color": "#c9d0d6", "cap": "#2d3640", "neck": 0.9, "legs": 0.85, "bill": "dagger", "plump": 0.4, "leg_color": "#b0954f", "big": 1.15, "crest": "plume"}}},
                    "Pelecanidae": {"Pelecanus": {"pelican": {"latin": "Pelecanus onocrotalus", "color": "white", "coat": "#f6efe4", "second": "#e7dccb", "head": "#f8f2e8", "neck": 0.55, "bill": "pouch", "bill_color": "#f0a93a", "legs": 0.22, "plump": 0.6, "big": 1.1, "third": "#39363a", "home": ("water", "beach")}}},
                },
                "Phoenicopteriformes": {"Phoenicopteridae": {"Phoenicopterus": {"flamingo": {"latin": "Phoenicopterus roseus", "color": "pink", "coat": "#f58fa6", "second": "#e86c8b", "head": "#f79db1", "neck": 1.0, "curve": True, "legs": 1.0, "bill": "bent", "bill_color": "#f6d5cf", "leg_color": "#e8698a", "plump": 0.4, "water_bird": True, "home": ("swamp", "water"), "big": 1.15}}}},
                "Sphenisciformes": {"Spheniscidae": {"Aptenodytes": {"plan": "penguin", "penguin": {"latin": "Aptenodytes forsteri", "color": "black", "coat": "#2c3442", "second": "#f7f4ea", "third": "#f2b138", "water_bird": True, "home": ("snow", "snow", "water"), "big": 1.0}}}},
                "Suliformes": {"Phalacrocoracidae": {"Phalacrocorax": {"cormorant": {"latin": "Phalacrocorax carbo", "color": "black", "coat": "#33363d", "second": "#25272d", "head": "#33363d", "neck": 0.42, "bill": "hook", "bill_color": "#b9a16a", "leg_color": "#3b3a3c", "legs": 0.22, "plump": 0.42, "tail": 0.34, "water_bird": True, "home": ("water", "beach")}}}},
                "Coraciiformes": {"Alcedinidae": {"Alcedo": {"kingfisher": {"latin": "Alcedo atthis", "color": "blue", "coat": "#2f86c6", "second": "#226aa8", "head": "#2f7fc0", "belly": "#e98a42", "bill": "dagger", "bill_color": "#3b3b42", "plump": 0.66, "big": 0.85, "legs": 0.16, "tail": 0.12, "water_bird": True, "home": ("water", "swamp"), "leg_color": "#d8622f"}}}},
                "Accipitriformes": {"bill": "hook", "legs": 0.3, "neck": 0.12, "leg_color": "#e0b13c", "tail": 0.34, "plump": 0.5, "upright": True, "bill_color": "#4a443f",
                    "Pandionidae": {"Pandion": {"osprey": {"latin": "Pandion haliaetus", "color": "brown", "coat": "#6e543f", "second": "#574131", "head": "#f3eee2", "belly": "#f4efe4", "mask": "#4c3a2c", "water_bird": True, "home": ("water", "beach")}}},
                    "Accipitridae": {"Buteo": {"hawk": {"latin": "Buteo jamaicensis", "color": "brown", "coat": "#74563e", "second": "#5b4331", "head": "#7f6047", "belly": "#ead9bd", "tail_color": "#b5552f", "home": ("mountain", "desert")}}},
                },
                "Galliformes": {"Phasianidae": {"plump": 0.68, "legs": 0.26, "tail": 0.24, "leg_color": "#a58b63",
                    "Lagopus": {"grouse": {"latin": "Lagopus scotica", "color": "brown", "coat": "#8a6448", "second": "#6b4b35", "head": "#5a4a3a", "brow": "#c8402f", "neck": 0.25, "third": "#d0b48d", "bill_color": "#4d443d", "home": ("mountain", "forest"), "pattern": "barred"}},
                    "Coturnix": {"quail": {"latin": "Coturnix coturnix", "color": "brown", "coat": "#a98459", "second": "#8b6a44", "head": "#8d6c4a", "belly": "#ecdcbc", "crest": "curl", "plump": 0.8, "big": 0.8, "bill_color": "#5a5048", "tail": 0.1, "home": ("meadow", "desert")}},
                    "Gallus": {"hen": {"latin": "Gallus gallus", "color": "red", "coat": "#b9512d", "second": "#94401f", "head": "#c65f35", "crest": "comb", "neck": 0.3, "tail": 0.45, "tail_up": True, "plump": 0.62, "home": ("meadow", "city")}},
                }},
                "Columbiformes": {"Columbidae": {"Columba": {"dove": {"latin": "Columba livia", "color": "gray", "coat": "#c9ced6", "second": "#98a3b3", "head": "#aeb8c6", "collar": "#6aa08d", "bill_color": "#4d4a50", "leg_color": "#d9646a", "tail": 0.3, "third": "#3c4049", "home": ("city", "meadow")}}}},
                "Gruiformes": {"legs": 0.8, "home": ("meadow", "desert"),
                    "Gruidae": {"Grus": {"crane": {"latin": "Grus grus", "color": "gray", "coat": "#a3a8ae", "second": "#858b93", "head": "#3b3f45", "neck_color": "#dfe2e5", "cap": "#c9392f", "neck": 0.88, "legs": 0.85, "bill": "medium", "bill_color": "#a89a78", "leg_color": "#45433f", "plump": 0.46, "tail": 0.36, "big": 1.15}}},
                },
                "Otidiformes": {"Otididae": {"Otis": {"bustard": {"latin": "Otis tarda", "color": "brown", "coat": "#a37a4e", "second": "#82603e", "head": "#b3b5b8", "neck_color": "#a9a39a", "neck": 0.58, "legs": 0.42, "plump": 0.6, "bill_color": "#6e665c", "leg_color": "#6f6558", "third": "#eee4d0", "home": ("meadow", "desert"), "pattern": "barred"}}}},
                "Strigiformes": {"Strigidae": {"Bubo": {"plan": "owl", "owl": {"latin": "Bubo bubo", "color": "brown", "coat": "#8c6239", "second": "#e6c797", "third": "#5b3d22", "home": ("night", "forest")}}}},
                "Psittaciformes": {"Psittacidae": {"Ara": {"parrot": {"latin": "Ara macao", "color": "red", "coat": "#d9342b", "second": "#2d62b8", "head": "#dd3d31", "wing_band": "#f2c531", "bill": "parrot", "bill_color": "#f1e6d2", "tail": 0.75, "upright": True, "cheek": "#fbf3ea", "legs": 0.16, "neck": 0.1, "tail_color": "#c82b2b", "home": ("forest", "swamp")}}}},
                "Passeriformes": {"legs": 0.24,
                    "Corvidae": {"Corvus": {"crow": {"latin": "Corvus corone", "color": "black", "coat": "#2c2d33", "second": "#1f2026", "head": "#2c2d33", "bill": "medium", "bill_color": "#3a3a40", "leg_color": "#2b2a2d", "neck": 0.2, "tail": 0.36, "plump": 0.46, "home": ("city", "forest")}}},
                    "Turdidae": {"Sialia": {"bluebird": {"latin": "Sialia sialis", "color": "blue", "coat": "#3b78c2", "second": "#2b5fa3", "head": "#3d7ac4", "belly": "#dd7f46", "bill": "short", "bill_color": "#3d3a3c", "plump": 0.66, "big": 0.85, "tail": 0.28, "leg_color": "#4c4440", "home": ("meadow", "forest")}}},
                },
            },
            "Mammalia": {"plan": "quadruped", "leg": 0.34, "girth": 0.2, "head": 0.15, "muzzle": 0.11, "ears": "round", "tail": "thin", "neck": 0.12, "third": "#2f2928",
                "Carnivora": {
                    "Canidae": {"ears": "point", "muzzle": 0.15, "tail": "bush",
                        "Vulpes": {"fox": {"latin": "Vulpes vulpes", "color": "orange", "coat": "#e0722b", "second": "#fbf1e3", "socks": "#3a2a25", "tail_tip": "#fbf1e3", "girth": 0.16, "leg": 0.28, "bib": True, "home": ("forest", "snow")}},
                        "Canis": {"wolf": {"latin": "Canis lupus", "color": "gray", "coat": "#7d848c", "second": "#d7dadc", "tail_tip": "#4b5056", "girth": 0.19, "leg": 0.38, "bib": True, "home": ("snow", "forest")}},
                    },
                    "Felidae": {"muzzle": 0.07, "tail": "long", "ears": "round", "whiskers": True,
                        "Panthera": {
                            "tiger": {"latin": "Panthera tigris", "color": "orange", "coat": "#ea8a2c", "second": "#fdf3e2", "pattern": "striped", "third": "#2b2320", "home": ("forest", "swamp"), "big": 1.1},
                            "lion": {"latin": "Panthera leo", "color": "yellow", "coat": "#dcab57", "second": "#f5e4bf", "mane": "#8c4f22", "tail": "tuft", "tail_tip": "#6f3d1c", "home": ("desert", "meadow"), "big": 1.1},
                        },
                        "Felis": {"cat": {"latin": "Felis catus", "color": "black", "coat": "#3a3840", "second": "#f8f5ef", "ears": "point", "bib": True, "socks": "#f8f5ef", "girth": 0.15, "leg": 0.25, "tail": "up", "eye": "#e4cf4a", "home": ("city", "night"), "big": 0.85}},
                    },
                    "Ursidae": {"girth": 0.27, "leg": 0.26, "tail": "none", "head": 0.17, "muzzle": 0.1, "thick": 1.6,
                        "Ursus": {"bear": {"latin": "Ursus arctos", "color": "brown", "coat": "#80522f", "second": "#c59a6a", "home": ("forest", "mountain"), "big": 1.1}},
                        "Ailuropoda": {"panda": {"latin": "Ailuropoda melanoleuca", "color": "white", "coat": "#f6f4ef", "second": "#ffffff", "socks": "#2e2d30", "ear_color": "#2e2d30", "eye_patch": "#2e2d30", "saddle": "#2e2d30", "home": ("forest", "mountain")}},
                    },
                },
                "Artiodactyla": {"leg": 0.4, "thick": 0.8, "ears": "leaf", "hoof": "#3b322c",
                    "Cervidae": {"Cervus": {"deer": {"latin": "Cervus elaphus", "color": "brown", "coat": "#b0713f", "second": "#f0dcbd", "horns": "antlers", "tail": "stub", "neck": 0.26, "girth": 0.17, "pattern": "dotted", "home": ("forest", "meadow")}}},
                    "Bovidae": {"girth": 0.25, "thick": 1.1,
                        "Bos": {"cow": {"latin": "Bos taurus", "color": "white", "coat": "#f7f3ee", "second": "#f0b7ac", "pattern": "patched", "third": "#33302f", "horns": "short", "snout": "#f0b7ac", "tail": "tuft", "tail_tip": "#33302f", "home": ("meadow", "mountain")}},
                        "Ovis": {"sheep": {"latin": "Ovis aries", "color": "white", "coat": "#f4efe2", "second": "#e4dccb", "wool": True, "face": "#3b3636", "socks": "#3b3636", "leg": 0.26, "tail": "stub", "home": ("meadow", "mountain"), "big": 0.9}},
                    },
                    "Suidae": {"Sus": {"pig": {"latin": "Sus scrofa", "color": "pink", "coat": "#f2a9ad", "second": "#f7c6c5", "girth": 0.27, "leg": 0.2, "thick": 1.1, "snout": "#e58a92", "tail": "curl", "hoof": "#a96e70", "home": ("meadow", "swamp"), "big": 0.9}}},
                    "Camelidae": {"Camelus": {"camel": {"latin": "Camelus dromedarius", "color": "brown", "coat": "#cfa068", "second": "#e9cfa0", "hump": True, "neck": 0.34, "girth": 0.19, "leg": 0.44, "tail": "tuft", "tail_tip": "#7d5a33", "home": ("desert",), "big": 1.1}}},
                    "Giraffidae": {"Giraffa": {"giraffe": {"latin": "Giraffa camelopardalis", "color": "yellow", "coat": "#efc567", "second": "#fae8bd", "pattern": "blotched", "third": "#a4602a", "neck": 0.5, "girth": 0.13, "leg": 0.37, "length": 0.36, "horns": "knobs", "tail": "tuft", "tail_tip": "#5d3a1e", "home": ("desert", "meadow"), "big": 1.25}}},
                    "Delphinidae": {"plan": "dolphin", "Tursiops": {"dolphin": {"latin": "Tursiops truncatus", "color": "gray", "coat": "#6f8ea6", "second": "#e4edf2", "home": ("water", "beach"), "floats": True}}},
                },
                "Perissodactyla": {"Equidae": {"leg": 0.42, "neck": 0.3, "girth": 0.19, "muzzle": 0.17, "ears": "leaf", "tail": "hair", "hoof": "#332c28", "thick": 0.85,
                    "Equus": {
                        "horse": {"latin": "Equus caballus", "color": "brown", "coat": "#8c4a2a", "second": "#b87a52", "hair": "#2e211b", "home": ("meadow", "mountain"), "big": 1.1},
                        "zebra": {"latin": "Equus quagga", "color": "white", "coat": "#f7f5f0", "second": "#ffffff", "hair": "#2a2728", "pattern": "striped", "third": "#2a2728", "home": ("meadow", "desert"), "big": 1.1},
                    }}},
                "Proboscidea": {"Elephantidae": {"Loxodonta": {"plan": "elephant", "elephant": {"latin": "Loxodonta africana", "color": "gray", "coat": "#8d929c", "second": "#a9aeb7", "home": ("desert", "meadow"), "big": 1.2}}}},
                "Lagomorpha": {"Leporidae": {"Oryctolagus": {"plan": "rabbit", "rabbit": {"latin": "Oryctolagus cuniculus", "color": "gray", "coat": "#b3a79c", "second": "#f6f0e8", "third": "#e9aeb0", "home": ("meadow", "snow"), "big": 0.85}}}},
                "Rodentia": {"Sciuridae": {"Sciurus": {"plan": "squirrel", "squirrel": {"latin": "Sciurus vulgaris", "color": "red", "coat": "#b8552a", "second": "#fbeeda", "home": ("forest", "city"), "big": 0.85}}}},
                "Chiroptera": {"Vespertilionidae": {"Myotis": {"plan": "bat", "bat": {"latin": "Myotis myotis", "color": "purple", "coat": "#5a4a63", "second": "#7d6a86", "home": ("night",), "floats": True}}}},
            },
            "Reptilia": {"second": "#e8e0a8",
                "Testudines": {"Cheloniidae": {"Chelonia": {"plan": "turtle", "turtle": {"latin": "Chelonia mydas", "color": "green", "coat": "#6d9a55", "second": "#8a6a3c", "third": "#5e4526", "home": ("beach", "water")}}}},
                "Squamata": {
                    "Colubridae": {"Natrix": {"plan": "snake", "snake": {"latin": "Natrix natrix", "color": "green", "coat": "#5fa046", "second": "#e9dd7a", "third": "#2f5f2d", "pattern": "banded", "home": ("swamp", "desert")}}},
                    "Iguanidae": {"Iguana": {"plan": "lizard", "iguana": {"latin": "Iguana iguana", "color": "green", "coat": "#84b84c", "second": "#c9de8d", "third": "#4c7b34", "home": ("desert", "forest"), "spines": True}}},
                },
                "Crocodilia": {"Crocodylidae": {"Crocodylus": {"plan": "crocodile", "crocodile": {"latin": "Crocodylus niloticus", "color": "green", "coat": "#66793f", "second": "#cfcf98", "third": "#47572b", "home": ("swamp", "water"), "big": 1.15}}}},
            },
            "Amphibia": {"Anura": {"Ranidae": {"Rana": {"plan": "frog", "frog": {"latin": "Rana temporaria", "color": "green", "coat": "#6cbb45", "second": "#e6efae", "third": "#3f8a33", "home": ("swamp", "water"), "big": 0.85}}}}},
            "Actinopterygii": {"plan": "fish", "home": ("water", "water", "swamp"), "floats": True, "depth": 0.26, "fin": "fan",
                "Cypriniformes": {"Cyprinidae": {"Carassius": {"goldfish": {"latin": "Carassius auratus", "color": "orange", "coat": "#f2892b", "second": "#fbd38d", "third": "#e0651d", "fin": "veil", "depth": 0.27, "big": 0.85}}}},
                "Perciformes": {"Pomacentridae": {"Amphiprion": {"clownfish": {"latin": "Amphiprion ocellaris", "color": "orange", "coat": "#f2702a", "second": "#fdfaf4", "third": "#2c2625", "pattern": "banded", "depth": 0.24, "big": 0.85}}}},
                "Salmoniformes": {"Salmonidae": {"Salmo": {"trout": {"latin": "Salmo trutta", "color": "gray", "coat": "#8d9c91", "second": "#e8dcc6", "third": "#b5493a", "pattern": "spotted", "depth": 0.17}}}},
                "Tetraodontiformes": {"Tetraodontidae": {"Tetraodon": {"plan": "puffer", "puffer": {"latin": "Tetraodon lineatus", "color": "yellow", "coat": "#e8c94a", "second": "#fdf7df", "third": "#8a6a25", "big": 0.85}}}},
                "Syngnathiformes": {"Syngnathidae": {"Hippocampus": {"plan": "seahorse", "seahorse": {"latin": "Hippocampus kuda", "color": "yellow", "coat": "#efb63a", "second": "#f8dd8b", "third": "#b57a1e"}}}},
            },
            "Chondrichthyes": {"Lamniformes": {"Lamnidae": {"Carcharodon": {"plan": "shark", "shark": {"latin": "Carcharodon carcharias", "color": "gray", "coat": "#68798a", "second": "#f1f4f5", "home": ("water",), "floats": True, "big": 1.15}}}}},
        },
        "Arthropoda": {"third": "#2b2523",
            "Insecta": {"plan": "beetle",
                "Hymenoptera": {
                    "Apidae": {"Apis": {"plan": "bee", "bee": {"latin": "Apis mellifera", "color": "yellow", "coat": "#f3bf2f", "second": "#dcecf4", "third": "#33291f", "pattern": "striped", "home": ("meadow", "forest"), "floats": True, "big": 0.8}}},
                    "Formicidae": {"Formica": {"plan": "ant", "ant": {"latin": "Formica rufa", "color": "red", "coat": "#a53f23", "second": "#7c2d19", "home": ("forest", "desert"), "big": 0.85}}},
                },
                "Coleoptera": {"Coccinellidae": {"Coccinella": {"ladybird": {"latin": "Coccinella septempunctata", "color": "red", "coat": "#d8342a", "second": "#f7f2ea", "pattern": "spotted", "home": ("meadow", "forest"), "big": 0.75}}}},
                "Odonata": {"Libellulidae": {"Libellula": {"plan": "dragonfly", "dragonfly": {"latin": "Libellula depressa", "color": "blue", "coat": "#3d8fc0", "second": "#d9eef2", "home": ("swamp", "water"), "floats": True}}}},
                "Lepidoptera": {"plan": "butterfly", "floats": True, "home": ("meadow", "forest"),
                    "Nymphalidae": {
                        "Danaus": {"monarch": {"latin": "Danaus plexippus", "color": "orange", "coat": "#ee7d22", "second": "#fff4e0", "third": "#2b2222", "pattern": "veined"}},
                        "Morpho": {"morpho": {"latin": "Morpho menelaus", "color": "blue", "coat": "#2d86e8", "second": "#8fd0fa", "third": "#1d2440", "pattern": "edged"}},
                    },
                    "Saturniidae": {"Actias": {"moth": {"latin": "Actias luna", "color": "green", "coat": "#b9e0a5", "second": "#f1d27b", "third": "#7a5a78", "pattern": "eyespots", "tails": True, "home": ("night", "forest")}}},
                },
            },
            "Arachnida": {
                "Araneae": {"Araneidae": {"Araneus": {"plan": "spider", "spider": {"latin": "Araneus diadematus", "color": "brown", "coat": "#6b4a35", "second": "#e9d9bd", "home": ("forest", "night")}}}},
                "Scorpiones": {"Buthidae": {"Androctonus": {"plan": "scorpion", "scorpion": {"latin": "Androctonus australis", "color": "yellow", "coat": "#c99238", "second": "#e5bf74", "third": "#6f4718", "home": ("desert",)}}}},
            },
            "Malacostraca": {"Decapoda": {"Cancridae": {"Cancer": {"plan": "crab", "crab": {"latin": "Cancer pagurus", "color": "red", "coat": "#dc5233", "second": "#f39a72", "home": ("beach",)}}}}},
        },
        "Mollusca": {
            "Gastropoda": {"Stylommatophora": {"Helicidae": {"Helix": {"plan": "snail", "snail": {"latin": "Helix pomatia", "color": "brown", "coat": "#d9b98a", "second": "#b5733c", "third": "#7c4a22", "home": ("meadow", "swamp"), "big": 0.8}}}}},
            "Cephalopoda": {"Octopoda": {"Octopodidae": {"Octopus": {"plan": "octopus", "octopus": {"latin": "Octopus vulgaris", "color": "purple", "coat": "#a4508b", "second": "#d88fb7", "third": "#7a3568", "home": ("water", "beach")}}}}},
        },
        "Cnidaria": {"Scyphozoa": {"Semaeostomeae": {"Ulmaridae": {"Aurelia": {"plan": "jellyfish", "jellyfish": {"latin": "Aurelia aurita", "color": "purple", "coat": "#b9a2ea", "second": "#e6dcfb", "third": "#8a6cc9", "home": ("water",), "floats": True}}}}}},
        "Echinodermata": {"Asteroidea": {"Forcipulatida": {"Asteriidae": {"Asterias": {"plan": "starfish", "starfish": {"latin": "Asterias rubens", "color": "orange", "coat": "#f0883e", "second": "#fbc48a", "third": "#c75f22", "home": ("beach", "water"), "big": 0.85}}}}}},
    },
    "Plantae": {"plan": "flower", "pattern": "plain", "big": 1.0, "third": "#3f8a45", "home": ("meadow",),
        "Tracheophyta": {
            "Magnoliopsida": {
                "Rosales": {"Rosaceae": {"Rosa": {"bloom": "rose", "rose": {"latin": "Rosa gallica", "color": "red", "coat": "#d42f45", "second": "#f0788a", "home": ("meadow", "city")}}}},
                "Asterales": {"Asteraceae": {"Helianthus": {"bloom": "disc", "sunflower": {"latin": "Helianthus annuus", "color": "yellow", "coat": "#f6c22d", "second": "#6b4321", "home": ("meadow",), "big": 1.1}}}},
            },
            "Liliopsida": {"Liliales": {"Liliaceae": {"Tulipa": {"bloom": "cup", "tulip": {"latin": "Tulipa gesneriana", "color": "pink", "coat": "#ec5f9c", "second": "#f9a5c6", "home": ("meadow", "city")}}}}},
        },
    },
    "Fungi": {"plan": "mushroom", "pattern": "spotted", "big": 0.9,
        "Basidiomycota": {"Agaricomycetes": {"Agaricales": {"Amanitaceae": {"Amanita": {"mushroom": {"latin": "Amanita muscaria", "color": "red", "coat": "#d6312b", "second": "#fbf4e6", "third": "#e7d9bd", "home": ("forest", "swamp")}}}}}},
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


def _species(node: Mapping[str, Any], path: tuple[str, ...], inherited: Mapping[str, Any]) -> list[Species]:
    traits = {**inherited, **{key: value for key, value in node.items() if not isinstance(value, dict)}}
    children = [(name, child) for name, child in node.items() if isinstance(child, dict)]
    if not children:
        return [Species(path[-1], (*path[:-1], traits["latin"]), MappingProxyType(traits))]
    return [leaf for name, child in children for leaf in _species(child, (*path, name), traits)]


TAXONOMY: dict[str, Species] = {species.name: species for species in _species(TREE, (), {})}
SPECIES: tuple[str, ...] = tuple(TAXONOMY)

# Water birds beside the land birds that look most like them: only details (and the place) tell the two apart.
LOOK_ALIKES: tuple[tuple[str, str], ...] = (
    ("duck", "grouse"), ("gull", "dove"), ("heron", "crane"), ("cormorant", "crow"),
    ("goose", "bustard"), ("kingfisher", "bluebird"), ("osprey", "hawk"), ("plover", "quail"),
)  # fmt: skip
