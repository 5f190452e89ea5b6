"""What `bad_input.py` tries with language models; some of it an output layer would refuse, if it got that far.

A target out of range and a batch whose positions are all ignored cannot be reached from here: ids come from the
vocabulary, and every token of a text is predicted. tests/contracts/test_output.py tries them on the layers.
"""

from bad_input_cases import TRAIN, TRAIN_LM, Case


def bad_language() -> list[Case]:
    """Texts, settings, runs and files that are refused."""

    def text(name: str, data: str, *says: str, options: str = "") -> Case:
        return Case(f"lm: {name}", f"{TRAIN_LM} --data {data} --out new {options}".strip(), [data, *says])

    def setting(name: str, options: str, *says: str) -> Case:
        return Case(f"lm: {name}", f"{TRAIN_LM} --data story.txt --out new {options}", says)

    def of_output(options: str) -> str:
        return f"--set 'model.output_options={options}'"

    untied = "--set model.tied=false --output"
    return [
        text("train on a 0-byte file", "zero.txt", "holds no text; give a file with words"),
        text("train on blanks alone", "blank.txt", "holds no text; give a file with words"),
        text("train on invalid UTF-8", "latin1.txt", "line 193", "not UTF-8", "convert"),
        text("train on UTF-16", "utf16.txt", "line 1", "UTF-16", "convert"),
        text("train on NUL bytes", "nul.txt", "line 193", "NUL byte; remove it"),
        text("train on one line", "line.txt", "1 line", "break the text into lines"),
        text("train on a table", "reviews.csv", "a table", "one a line"),
        text("train on a .karui file", "lm.karui", "a .karui file", "karui eval"),
        text("train on a missing file", "absent.txt", "no such file"),
        text("train on an empty folder", "hollow", "no train part", "train.txt"),
        text("train on labelled data", "imdb", "running text", "stdlib-docs"),
        text("unknown text", "pbt", "did you mean 'ptb'"),
        text("column of a text file", "story.txt", "leave --text out", options="--text body"),
        text("fewer tokens than columns", "story.txt", "lower it", options="--set data.batch_size=100000"),
        text("no word frequent enough", "story.txt", "data.min_count", options="--set data.min_count=10000"),
        setting("unknown level", "--level letter", "data.level", "word, char"),
        setting("unknown output layer", "--output softmax", "model.output", "adaptive", "'softmax'"),
        setting("tied tree", "--output huffman", "model.tied must be false for huffman"),
        setting("finish of another family", "--set model.output_finish=class", "model.output_finish", "full"),
        setting(
            "option that the output lacks",
            of_output('{"k": 2}'),
            "full has no option 'k'",
            "chunk_size",
        ),
        setting(
            "more distinct samples than words",
            "--output sampled --set model.num_samples=1000 " + of_output('{"unique": true}'),
            "num_samples must be <=",
        ),
        setting("more clusters than words", f"{untied} class " + of_output('{"n_clusters": 999}'), "999"),
        setting("cut-off beyond the words", f"{untied} adaptive " + of_output('{"cutoffs": [999]}'), "999"),
        setting("a figure that words lack", "--set train.monitor=bpc", "train.monitor", "nll or perplexity"),
        setting("the option of a classifier", "--label topic", "data.label", "classify"),
        setting("the layer none", "--recurrent none", "model.recurrent", "mingru"),
        Case(
            "lm: NaN hidden vectors",
            f"{TRAIN_LM} --data story.txt --out new --set train.lr=1e30",
            ["the loss", "train.lr"],
            writes="new/*",
        ),
        Case(
            "lm: resume another task",
            f"{TRAIN} --data reviews.csv --out lm --resume",
            ["lm", "another folder"],
        ),
        Case("lm: words of another model", "eval other-words", ["other-words/vocabulary.json", "do not fit"]),
        Case("lm: k above V", "sample lm.karui --top-k 1000", ["top_k must be from 0 to", "1000"]),
        Case("lm: k above V, run", "sample lm --top-k 1000", ["top_k must be from 0 to", "1000"]),
        Case("lm: infinite temperature", "sample lm.karui --temperature inf", ["temperature must be finite"]),
        Case("lm: sample of a classifier's file", "sample model.karui", ["model.karui", "karui predict"]),
        Case("lm: sample of a classifier's run", "sample run", ["run", "only language models"]),
        Case("lm: sample of a text", "sample story.txt", ["story.txt", "karui compact"]),
        *(
            Case(
                f"lm: {verb} of a cut file",
                f"{verb} truncated-lm.karui{rest}",
                ["truncated-lm.karui", "checksum"],
            )
            for verb, rest in {
                "sample": "",
                "eval": " --data story.txt",
                "inspect": "",
                "predict": "",
            }.items()
        ),
        *(
            Case(f"lm: {verb} of a run without checkpoints", f"{verb} bare-lm{rest}", ["bare-lm", "--resume"])
            for verb, rest in {"sample": "", "eval": "", "compact": " -o new.karui"}.items()
        ),
        Case("lm: eval without a text", "eval lm.karui", ["--data PATH"]),
        Case("lm: eval on a 0-byte file", "eval lm.karui --data zero.txt", ["zero.txt", "holds no text"]),
        Case("lm: eval on invalid UTF-8", "eval lm.karui --data latin1.txt", ["latin1.txt", "line 193"]),
        Case("lm: eval with a label", "eval lm --label x", ["lm", "for classifiers"]),
        Case("lm: predict invalid UTF-8", "predict lm.karui latin1.txt", ["latin1.txt, line 193", "convert"]),
        Case("lm: probabilities of labels", "predict lm.karui story.txt --proba", ["no labels", "--score"]),
        Case("lm: scores by a classifier", "predict model.karui story.txt --score", ["language models"]),
        Case(
            "lm: bench of a language model",
            "bench runtime lm.karui story.txt",
            ["lm.karui", "language model"],
        ),
        Case(
            "lm: compact to levels",
            "compact lm -o new.karui --levels 15",
            ["levels are for text classifiers"],
        ),
        Case(
            "lm: compact to an impossible size", "compact lm -o new.karui --max-bytes 10", ["10", "smaller"]
        ),
        Case("lm: report with baselines", "report lm --baselines", ["lm", "text classifiers"]),
    ]


def odd_language() -> list[Case]:
    """Unusual texts and sizes that must work: `<unk>` occurs nowhere in them, so that a count is zero."""
    train = f"{TRAIN_LM} --data story.txt --out new"
    untied = "--set model.tied=false"
    cases = [
        Case(f"lm: a count of zero, {output}", f"{train} --output {output}", writes="new/*")
        for output in ("full", "nce", "blackout", f"huffman {untied}", f"adaptive {untied}")
    ]
    least = f"{train} --set data.max_words=1"
    return [
        *cases,
        Case("lm: one word besides </s> and <unk>", f"{least} --output sampled", writes="new/*"),
        Case("lm: the same, a tree", f"{least} --set model.tied=false --output huffman", writes="new/*"),
        Case(
            "lm: a word of 5,000 bytes and a long line",
            f"{TRAIN_LM} --data long.txt --out new",
            writes="new/*",
        ),
        Case("lm: characters nobody has seen", "eval lm.karui --data strange.txt --json", lines=1),
        Case("lm: characters nobody has seen, run", "eval lm --data strange.txt --json", lines=1),
        Case("lm: prompt of unknown characters", "sample lm.karui --prompt 漢字Ω --tokens 0", lines=1),
        Case(
            "lm: more next words than there are", "predict lm.karui --top 1000", stdin="the film\n", lines=1
        ),
        Case("lm: score an empty line", "predict lm.karui --score", stdin="\n", lines=1),
        Case("lm: predict from a 0-byte file", "predict lm.karui zero.txt", lines=0),
        Case(
            "lm: a temperature next to zero",
            "sample lm.karui --temperature 1e-320 --tokens 1 --json",
            lines=1,
        ),
    ]
