"""85 values that no input of a node expects, as a graph could bring them. All are harmless to whoever only looks at them."""

NAMES = [
    "", " ", "\t", "\n", "x", "X" * 300, "a" * 20_000, "\x00", "sample\x00", "\x1b[2J", "\x07", "\r\nforged line", "\ud800", "a\udfffb",
    "\u202egnp.exe", "\ufeff", "e\u0301", "\u00e9", "\U0001f34f", "日本語", "٣", "½", "../x", "..", ".", "/", "/etc/passwd", "~", "~root/x",
    "C:\\x", "C:x", "\\\\server\\share", "//server/share", "a/../../b", "a\\..\\b", "a/./b", "a//b", "x.", "x ", ".hidden", "con", "NUL.safetensors",
    "com1.json", "aux/x", "x:stream", "file:///etc/passwd", "http://127.0.0.1:9/x", "hf-hub:a/b", "%s%s%n", "{0}", "$HOME", "`id`", "; true",
    "<b>x</b>", "None", "null", "nan", "-1", "1e999", "0x10", "True", "[]", "{}", '{"a": 1}', "sample (shipped) ", "SAMPLE (SHIPPED)",
]  # fmt: skip
OTHERS = [
    None, True, False, 0, -1, 1 << 31, 1 << 64, -(1 << 64), 10**39, 0.5, -0.0, 1e300, 5e-324,
    [], ["1"], ["1", 0, 0], [[1]], {}, {"a": {"b": [None]}},
]  # fmt: skip
VALUES = [*NAMES, *OTHERS]
