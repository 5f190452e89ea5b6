"""The colour images of 32 by 32 pixels: CIFAR-10 and CIFAR-100 as published, and a part of CIFAR-10 in sheets.

The archives are the binary ones: records of bytes, nothing in them is run. The part is the whole test split and 10,000
of the 50,000 training images: it is called a subset wherever a figure of it is shown.
"""

from karui.data.catalogue_entry import DataFile, NamedSet, Part

SUBSET = "cifar10_subset"
INDEX = "index"
"""Role of the table that says where in the sheets an image lies and what it shows."""

_SITE = "https://www.cs.toronto.edu/~kriz"
_LICENCE = "no formal licence; research use, cite Krizhevsky 2009"
_HOMEPAGE = f"{_SITE}/cifar.html"
_NAMES_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_WORDS_100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""

# name -> (size in bytes, SHA-256)
_ARCHIVES = {
    "cifar-10-binary.tar.gz": (
        170052171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "cifar-100-binary.tar.gz": (
        168513733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
}
_SUBSET_FILES = {
    "index.tsv.xz": (126804, "9e2b78d5f68536e9b51c51c5d091cf94b8b964472872655020ecefe0a15f1a98"),
    "test_0_airplane_0.png": (1857656, "a4026015abe888511a31abf40972249dc943ce507659903e26df9d132712a190"),
    "test_1_automobile_0.png": (2223520, "a2ebb2cf6731a82308825d86cd9117e82960c7eacd37e90d13a396a46ab8d5fd"),
    "test_2_bird_0.png": (2079571, "8f75297b9c64e385866d411a803d40fc0e7e76b269d4eb8f62465b5b6e6a996b"),
    "test_3_cat_0.png": (2175180, "02301707fb54ac3d1e282516505ccb2248a57e5481a62dc4cb1df0f71866baed"),
    "test_4_deer_0.png": (2194498, "22692e0365d539e09422a3c2da74b905a4183d5b77b7e0547792f2d6a57ff09e"),
    "test_5_dog_0.png": (2194418, "8a4c5d47e2b49354efbe633a854ddbb65baae11a7a9d07eeea031db9b71e5ae8"),
    "test_6_frog_0.png": (2332310, "4eb7625f1270cfb8c1e22f8a2f737ab86ae2c288e2f1815fe428517b287560e5"),
    "test_7_horse_0.png": (2230788, "d0b7b4ed6dded4096d9e4a7fe6e88f6944a4f2a560cb91006d2d71c4834c7aab"),
    "test_8_ship_0.png": (1978048, "88b26844607c0f1d20c5381a172eed5bd39e478544be1246d4208c8c8f270048"),
    "test_9_truck_0.png": (2203677, "f838fa49ee051d29375b953cfcf9db5fc7ac3082c4e015e688e0919177b5cce7"),
    "train_0_airplane_0.png": (1881672, "d9c5a82182d4830f6f5a925a958922750ef80e1fda761ddcb5aa240e895edabe"),
    "train_1_automobile_0.png": (2224147, "7853f0b3df11cd6697a6cfd8a2dd83fcd7e5c86878b3cb2fffe88f1d23fb1ff6"),
    "train_2_bird_0.png": (2081785, "d5df5d4a8b430ec4d7eb9999472f3eb225ed48a74c0e77307f2ca83d15964359"),
    "train_3_cat_0.png": (2157179, "e6c0711cad46c66365632b0fe10525fc5ff2c9c8c20f08e293c8a164780a9e7d"),
    "train_4_deer_0.png": (2200454, "809bd917ab23228573b3ce3955c98dd1a777558f501501e8b384791319fab750"),
    "train_5_dog_0.png": (2197696, "2fd22e112901c2a5622822e28b99c86589872eb402044fd4da96f4daf694c306"),
    "train_6_frog_0.png": (2331806, "a60a8b3f73f55dfc2ef956e13c71da00a216b9c53b9a4bbd107756e18f8aee12"),
    "train_7_horse_0.png": (2237709, "7842f9cc2a5d56bb0630dc53511a94e5f5f579b99a54539ef650cce1a774fc9b"),
    "train_8_ship_0.png": (1967267, "cf2bfbe8e5d639c2870e2687956c4dd39ae99df32259c04799579ad5ab31d5e2"),
    "train_9_truck_0.png": (2218232, "637dbe4c772b44b907710b8e45c95d37442a8158449527336e65b4e25f564023"),
}


def _archive(name: str) -> Part:
    size, sha256 = _ARCHIVES[name]
    return Part("all", (DataFile(name, size, sha256, url=f"{_SITE}/{name}"),))


def _subset_part(name: str) -> Part:
    size, sha256 = _SUBSET_FILES[name]
    role = name.removesuffix(".png")
    return Part(
        INDEX if role == name else role, (DataFile(name, size, sha256, subset=role.startswith("train")),)
    )


IMAGE_ENTRIES = (
    NamedSet(
        "cifar10",
        "colour images, 32 by 32, 10 classes (Krizhevsky 2009)",
        "cifar10",
        (_archive("cifar-10-binary.tar.gz"),),
        _NAMES_10,
        {"train": 50000, "test": 10000},
        _LICENCE,
        _HOMEPAGE,
        "images",
    ),
    NamedSet(
        "cifar100",
        "colour images, 32 by 32, 100 classes (Krizhevsky 2009)",
        "cifar100",
        (_archive("cifar-100-binary.tar.gz"),),
        tuple(_WORDS_100.split()),
        {"train": 50000, "test": 10000},
        _LICENCE,
        _HOMEPAGE,
        "images",
    ),
    NamedSet(
        SUBSET,
        "a part of cifar10: its whole test split, 10,000 of its 50,000 training images",
        SUBSET,
        tuple(_subset_part(name) for name in _SUBSET_FILES),
        _NAMES_10,
        {"train": 10000, "test": 10000},
        _LICENCE,
        _HOMEPAGE,
        "images",
    ),
)
