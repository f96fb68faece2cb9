//! Which family a chat template is of: the marks that it puts around messages, for people. Nothing is
//! decided by it.

/// The name of a family, and marks all of which its templates have; the first that fits is it.
const FAMILIES: [(&str, &[&str]); 23] = [
    ("harmony", &["<|channel|>", "<|start|>"]),
    ("llama4", &["<|header_start|>"]),
    ("llama3", &["<|start_header_id|>"]),
    ("granite", &["<|start_of_role|>"]),
    ("gemma", &["<start_of_turn>"]),
    ("gemma4", &["<|turn>"]),
    ("glm", &["[gMASK]"]),
    ("deepseek", &["<｜User｜>"]),
    ("hunyuan", &["<｜hy_User｜>"]),
    ("hunyuan", &["<|startoftext|>", "<|extra_0|>"]),
    ("minimax", &["]~b]"]),
    ("ernie", &["<|begin_of_sentence|>", "Assistant: "]),
    ("dots", &["<|userprompt|>"]),
    ("bailing", &["<role>"]),
    ("kimi", &["<|im_middle|>"]),
    ("command-r", &["<|START_OF_TURN_TOKEN|>"]),
    // Phi-4 has `<|im_start|>` too.
    ("phi", &["<|im_sep|>"]),
    ("chatml", &["<|im_start|>"]),
    ("llama2", &["[INST]", "<<SYS>>"]),
    ("mistral", &["[INST]"]),
    ("phi", &["<|end|>", "<|assistant|>"]),
    ("glm", &["<|observation|>"]),
    ("zephyr", &["<|assistant|>"]),
];

/// The family of a template with this source, such as `chatml`; `None` if it is of none that is known.
pub fn family(source: &str) -> Option<&'static str> {
    let fits = |marks: &[&str]| marks.iter().all(|mark| source.contains(mark));
    FAMILIES.iter().find(|(_, marks)| fits(marks)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::family;

    #[test]
    fn templates_are_told_apart_by_their_marks() {
        let of = [
            ("{{ '<|im_start|>' + m.role }}", Some("chatml")),
            ("<|im_start|>user<|im_sep|>", Some("phi")),
            ("<|user|>\n{{ m }}<|end|>\n<|assistant|>\n", Some("phi")),
            ("[gMASK]<sop><|user|><|assistant|>", Some("glm")),
            ("{{ '[INST] ' + m + ' [/INST]' }}", Some("mistral")),
            ("<|start|>assistant<|channel|>final<|message|>", Some("harmony")),
            ("{{ m.content }}", None),
        ];
        for (source, expected) in of {
            assert_eq!(family(source), expected, "{source}");
        }
    }
}
