//! Flags and commands of other servers: what to use here instead.
//!
//! A flag that means the same here is simply understood; this table is for the others, and is looked
//! at only when a command line cannot be read.

/// Other servers' words, and what to do here.
const TIPS: &[(&[&str], &str)] = &[
    (
        &["-ngl", "--n-gpu-layers", "--gpu-layers", "--ngl", "-dev", "--device", "-sm", "-ts"],
        "Woolly computes on CPUs: leave it out",
    ),
    (&["--gpu-memory-utilization", "--main-gpu", "-mg"], "Woolly computes on CPUs: leave it out"),
    (
        &["--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--rpc"],
        "layers are cut over the workers that join: see --workers and --cut",
    ),
    (&["-np", "--parallel", "--max-num-seqs"], "--running-max sets how many are computed together"),
    (&["--max-model-len", "-ctx"], "--ctx-size sets the longest sequence"),
    (&["--served-model-name"], "--alias names the model"),
    (
        &["-ctk", "-ctv", "--cache-type-k", "--cache-type-v", "--kv-cache-dtype"],
        "--cache-type sets how the KV cache holds its values",
    ),
    (&["--chat-template"], "--chat-template-file FILE gives another template"),
    (&["--jinja"], "the model's own template is always used: leave it out"),
    (
        &["-fa", "--flash-attn", "-cb", "--cont-batching", "--mmap", "--enable-prefix-caching"],
        "this is always so here: leave it out",
    ),
    (&["--no-mmap"], "weights are always mapped; --huge-pages and --mlock say how"),
    (
        &["-b", "-ub", "--batch-size", "--ubatch-size", "--max-num-batched-tokens"],
        "batches follow from measurements: leave it out, or see --itl-target",
    ),
    (
        &["-hf", "--hf-repo", "-hff", "--hf-file", "-mu", "--model-url"],
        "--model hf:OWNER/REPO:QUANT, hf:OWNER/REPO/FILE.gguf or https://… downloads a model",
    ),
    (&["--api-keys"], "--api-key-file FILE holds one key per line"),
    (&["-tb", "--threads-batch"], "--threads sets the compute threads of each local worker"),
    (&["--dtype", "--quantization"], "the file says how its weights are held: leave it out"),
    (&["--timeout"], "--request-timeout limits how long a request may take"),
    (
        &["--no-webui", "--path", "--slots", "--metrics", "--props"],
        "leave it out: GET /metrics and GET /health are always there",
    ),
    (&["run", "start", "server"], "the command is `woolly-coordinator serve -m FILE`"),
    (&["pull", "download"], "the command is `woolly-coordinator models pull hf:OWNER/REPO:QUANT`"),
];

/// A tip for the first of these words that another server knows.
pub fn tip(words: impl IntoIterator<Item = String>) -> Option<(String, &'static str)> {
    words.into_iter().find_map(|word| {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        let (_, tip) = TIPS.iter().find(|(names, _)| names.contains(&name))?;
        Some((name.to_owned(), *tip))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cli;
    use clap::CommandFactory;

    #[test]
    fn other_servers_words_have_a_tip() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let found = tip(words("serve -m a.gguf -ngl 99 -fa")).unwrap();
        assert_eq!(found, ("-ngl".to_owned(), "Woolly computes on CPUs: leave it out"));
        assert_eq!(tip(words("serve --max-model-len=4096")).unwrap().0, "--max-model-len");
        assert_eq!(tip(words("serve -m a.gguf --wrkers 2")), None);
    }

    #[test]
    fn every_flag_that_a_tip_names_exists_and_none_of_ours_has_one() {
        let mut command = Cli::command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        for (names, tip) in TIPS {
            for word in tip.split([' ', ',', ':']).filter(|word| word.starts_with("--")) {
                assert!(help.contains(word), "{word} does not exist: {tip}");
            }
            for name in names.iter().filter(|name| name.starts_with("--")) {
                let ours =
                    serve.get_arguments().any(|arg| arg.get_long() == name.strip_prefix("--"));
                assert!(!ours, "{name} is understood and needs no tip");
            }
        }
    }
}
