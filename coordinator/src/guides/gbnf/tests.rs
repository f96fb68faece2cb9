//! What GBNF says and what comes out, with the grammars of llama.cpp's own documentation.

use super::to_lark;
use crate::guides::tests::{accepted, accepts_all};

const JSON: &str = r##"# A grammar of JSON
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"##;

#[test]
fn json_of_llama_cpp() {
    accepts_all(
        JSON,
        &["{}", r#"{"a": [1, -2.5e3, "x\"\u00e9"],"b":{"c":null}}"#, "{\n  \"a\": true}"],
        &["[1]", "{", "{\"a\" 1}", "{\"a\":01}x", ""],
    );
}

#[test]
fn every_form_is_understood() {
    accepts_all("root ::= \"a\" | \"b\" [cd]+", &["a", "bc", "bdd"], &["b", "ac", ""]);
    accepts_all(
        "root ::= x{2} y{1,} z{0,2}\nx ::= \"x\"\ny ::= [y]\nz ::= [^xy]",
        &["xxy", "xxyyab"],
        &["xy", "xxyabc"],
    );
    accepts_all("root ::= .{2,3}", &["ab", "a\n", "abc"], &["a", "abcd"]);
    accepts_all("root ::= (\"(\" root \")\")?", &["", "()", "((()))"], &["(", "())"]);
    accepts_all("root ::= \"a\"\n  | \"b\"\nother ::= root", &["a", "b"], &["ab"]);
    accepts_all("root ::= \"\\x41\\u00e9\\\\\" [\\]\\-a]", &["Aé\\]", "Aé\\-"], &["A", "Aé\\b"]);
    accepts_all(
        "root ::= item (\", \" item)*\nitem ::= [a-z]+ | \"[\" root \"]\"",
        &["ab, c", "[a, [b]]"],
        &["a,b", "[a"],
    );
    assert!(accepted("root ::= <[258]> \"x\""));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (text, line, word) in [
        ("", "", "root"),
        ("rot ::= \"a\"", "", "root"),
        ("root ::= item", "", "item"),
        ("root ::= \"a", "line 1", "ends here"),
        ("root ::= [a", "line 1", "ends here"),
        ("root ::= [z-a]", "line 1", "empty"),
        ("root ::= []", "line 1", "nothing"),
        ("root ::= (\"a\"", "line 1", "')'"),
        ("root = \"a\"", "line 1", "'::='"),
        ("root ::= \"a\"\nroot ::= \"b\"", "line 2", "above"),
        ("root ::= \"a\"{3,2}", "line 1", "'{m,n}'"),
        ("root ::= \"a\"{99999}", "line 1", "10000"),
        ("root ::= \"\\q\"", "line 1", "escape"),
        ("root ::= \"\\uD800\"", "line 1", "hexadecimal"),
        ("\nroot ::= \"a\" ]", "line 2", "end of the line"),
        ("root ::= foo**", "", "foo"),
        ("root ::= <[x]>", "line 1", "token"),
        ("%%", "line 1", "name"),
    ] {
        let error = to_lark(text).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(word), "{text:?}: {error}");
    }
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(80), ")".repeat(80));
    assert!(to_lark(&deep).unwrap_err().to_string().contains("deeper"));
    let many: String = (0..5000).map(|i| format!("r{i} ::= \"a\"\n")).collect();
    assert!(to_lark(&many).unwrap_err().to_string().contains("rules"));
}
