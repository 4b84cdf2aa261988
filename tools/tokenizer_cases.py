"""Small trained tokenizers with the ids that the `tokenizers` package gives, for make_template_fixtures.py."""

import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 2024, isn't it? They'll say we've 12345 reasons!",
    "def main():\n    return {'key': [1, 2.5, None]}\n\n\tprint(\"done\")  # comment",
    "Größe, café, naïve, Ærø, Zürich. Привет, мир! Ελλάδα. שלום. 日本語のテキスト、中文文本。 한국어",
    "emoji 🤖🚀 👩‍🚀 and symbols ∑∫√ → ← € £ ¥ © ™ … — “quotes” ‘single’",
] * 4
TEXTS = [
    "", " ", "a", "The quick brown fox", "  leading and   inner   spaces  ", "don't WON'T it's they'LL I'm", "12345 + 678 = 13023",
    "new\nlines\n\n\nand\ttabs \r\n end\n", "日本語と中文 한국어 Привет שלום", "🤖👩‍🚀🇩🇪 e\u0301 \u00e9", "<|special|>text<|special|> </s> <s>",
    "mixedCASE_snake-kebab.dots/paths\\back", "zero\u200bwidth\ufeffbom\u00a0nbsp\u3000wide", "\x00\x01\x7f control", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 8,
    "if (x >= 10) { return `y`; } // ok", "“curly” … — ™", "<0x41> literal", "▁ under", "\U0010ffff \ud7ff",
]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
SPECIAL = ["<s>", "</s>", "<|special|>"]
SPIECE = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def byte_level(patterns, digits=False):
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    parts += [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    use_regex = not patterns
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def byte_fallback(strip):
    """As Llama 2 (strip the first space) and Gemma (keep it)."""
    latin = [text for text in CORPUS if text.isascii()]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if strip else replace
    alphabet = sorted({c for text in latin for c in text} | {"▁"})
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in latin], trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", *SPECIAL, *(f"<0x{b:02X}>" for b in range(256))], initial_alphabet=alphabet, show_progress=False))
    tokenizer.decoder = decoders.Sequence(SPIECE + ([decoders.Strip(" ", 1, 0)] if strip else []))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(data))


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]", "<|special|>"], show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "</s>", "<|special|>"], unk_token="<unk>", show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def word_suffix():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<|special|>"], end_of_word_suffix="</w>", show_progress=False))
    return tokenizer


def word_level():
    """Without a decoder; with added tokens that strip and match whole words, truncation and padding."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]", "<|special|>"], show_progress=False))
    tokenizer.add_tokens([AddedToken("mixedCASE", single_word=False, lstrip=True, rstrip=True), AddedToken("快", normalized=False)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return tokenizer


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "byte_level_gpt2": lambda: byte_level([GPT2]), "byte_level_llama3": lambda: byte_level([LLAMA3]),
        "byte_level_qwen2": lambda: byte_level([QWEN2]), "byte_level_o200k": lambda: byte_level([O200K]),
        "byte_level_deepseek": lambda: byte_level(DEEPSEEK), "byte_level_digits": lambda: byte_level([], digits=True),
        "byte_fallback_strip": lambda: byte_fallback(True), "byte_fallback": lambda: byte_fallback(False),
        "word_piece": word_piece, "unigram": unigram, "word_suffix": word_suffix, "word_level": word_level}
    numbers = random.Random(0)
    for name, train in made.items():
        path = folder / f"{name}.tokenizer.json"
        if not path.exists():  # training depends on the order of hash tables: each run gives other merges
            text = json.dumps(json.loads(train().to_str()), ensure_ascii=False, separators=(",", ":"))
            path.write_text(text + "\n")
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        size = tokenizer.get_vocab_size()
        cases = [{"text": t, "ids": tokenizer.encode(t).ids, "plain": tokenizer.encode(t, add_special_tokens=False).ids} for t in TEXTS]
        for case in cases:
            case["decoded"] = tokenizer.decode(case["ids"], skip_special_tokens=False)
            case["skipped"] = tokenizer.decode(case["ids"], skip_special_tokens=True)
        rows = [[numbers.randrange(size) for _ in range(12)] for _ in range(20)]
        scrambled = [{"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)} for ids in rows]
        content = {"vocab_size": size, "cases": cases, "random": scrambled}
        (folder / f"{name}.cases.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
        print(f"{name}: {size} tokens, {path.stat().st_size} bytes")


def smollm2(gguf, folder):
    """SmolLM2's own tokenizer from its GGUF (too large to commit): `folder`/tokenizer.json and cases.json."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields
    strings = lambda key: [bytes(fields[key].parts[i]).decode() for i in fields[key].data]
    tokens, merges = strings("tokenizer.ggml.tokens"), strings("tokenizer.ggml.merges")
    kinds = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    special = [token for token, kind in zip(tokens, kinds) if kind == 3]
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    cases = [{"text": text, "ids": tokenizer.encode(text).ids} for text in TEXTS + CORPUS]
    (folder / "cases.json").write_text(json.dumps(cases))
