//! Flags about what the model is called.

use clap::Args;
use woolly_protocol::limits::NAME_MAX;

/// What the model is called.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct NamingArgs {
    /// The model's name in the API [default: the file's name without .gguf]; may be given several
    /// times, or separated by commas: the first is the one that answers and lists show. The file's own
    /// names are understood too, whatever the case of their letters
    #[arg(short, long, env = "WOOLLY_ALIAS", value_name = "NAME", value_delimiter = ',')]
    #[arg(value_parser = parse_alias)]
    pub alias: Vec<String>,
    /// Answer whatever model a client asks for: for tools that always ask for the same one
    #[arg(long, env = "WOOLLY_ANY_MODEL")]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub any_model: bool,
}

impl NamingArgs {
    /// The name to show, and the others that are understood, for a file with these names.
    pub fn names(&self, stem: String, name: String) -> (String, Vec<String>) {
        let mut names = self.alias.iter().cloned();
        let shown = names.next().unwrap_or_else(|| stem.clone());
        (shown, names.chain([stem, name]).collect())
    }
}

fn parse_alias(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_MAX || text.chars().any(char::is_control) {
        return Err(format!("expected 1 to {NAME_MAX} bytes without control characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_alias_is_shown_and_all_names_are_understood() {
        let names = |alias: &[&str]| {
            let alias = alias.iter().map(|name| (*name).to_owned()).collect();
            let args = NamingArgs { alias, any_model: false };
            args.names("file".to_owned(), "Real Name".to_owned())
        };
        let others = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&[]), ("file".to_owned(), others(&["file", "Real Name"])));
        let all = others(&["gpt-4o", "file", "Real Name"]);
        assert_eq!(names(&["mine", "gpt-4o"]), ("mine".to_owned(), all));
    }
}
