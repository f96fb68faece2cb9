//! The text helpers are themselves tested: a rule that reads the wrong text proves nothing.

use woolly_tests::source::{SourceFile, line_of, words};

fn code(text: &str) -> String {
    SourceFile { path: "a.rs".to_owned(), text: text.to_owned() }.code()
}

#[test]
fn comments_and_strings_are_blank_and_lines_stay() {
    let text =
        "a // unsafe\nb /* x /* y */ \n z */ c \"un\\\"safe\nd\" e r#\"f\"g\"# h b'x' 'i' 'j: k";
    let code = code(text);
    assert_eq!(code.matches('\n').count(), text.matches('\n').count());
    let left: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(left, ["a", "b", "c", "e", "h", "b", "'j:", "k"]);
}

#[test]
fn an_escaped_quote_is_a_character() {
    let left = code("('\\'', '\"', '\\u{1F600}') unsafe");
    assert!(left.ends_with("unsafe"), "{left}");
    assert!(!left.contains('"'));
}

#[test]
fn unit_tests_at_the_end_are_left_out_and_nothing_else() {
    let text =
        "#[cfg(test)]\nuse a;\nfn b() {}\n#[cfg(test)]\nmod tests { fn c() {} }\n".to_owned();
    let kept = SourceFile { path: "a.rs".to_owned(), text }.code_without_tests();
    assert!(kept.contains("fn b()") && !kept.contains("fn c()"));
}

#[test]
fn words_are_whole() {
    let found: Vec<usize> = words("unsafe unsafe_code (unsafe)", "unsafe").collect();
    assert_eq!(found, [0, 20]);
    assert_eq!(words("a.exp(1) b.exp2(1)", ".exp(").count(), 1);
    assert_eq!(line_of("a\nb\nc", 4), 3);
}
