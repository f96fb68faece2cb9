//! Which models are loaded, and under which names.
//!
//! The gateway finds a request's model here by the name that the client gave; the router finds the
//! model's lanes by its [`ModelId`]. Models come and go: what is found stays usable for who has found it, and
//! what it submits after that is refused. A model that is not ready yet is here, too.

use super::template::Template;
use crate::chat_formats::Format;
use crate::guides::{GrammarError, Guides};
use crate::ids::ModelId;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use woolly_engine::chat_template::ChatTemplate;
use woolly_engine::tokenizer::Tokenizer;

/// What Ollama's clients put behind a model's name.
const LATEST: &str = ":latest";

/// What is said about a model.
#[derive(Clone, Debug, Default)]
pub struct ModelFacts {
    /// For instance `llama`.
    pub architecture: String,
    /// For instance `Q4_K_M`.
    pub file_type: String,
    /// Positions that the model was trained for.
    pub ctx_train: u32,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A model as requests see it.
#[derive(Debug)]
pub struct ServedModel {
    /// Its place among those served.
    pub id: ModelId,
    /// The name that clients ask for.
    pub name: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that end a completion.
    pub end_tokens: Arc<[u32]>,
    /// How it writes what it thinks and which tools it calls.
    pub format: Format,
    /// What compiles grammars for its vocabulary: made for the first that is asked for.
    guides: OnceLock<Result<Guides, GrammarError>>,
    /// Messages to text.
    pub template: Template,
    /// For `/v1/models`.
    pub facts: ModelFacts,
    /// What identifies its files; known once they were read.
    pub fingerprint: OnceLock<[u8; 32]>,
}

/// The models that are loaded, in the order of loading.
#[derive(Debug)]
pub struct Registry {
    models: RwLock<Vec<Arc<ServedModel>>>,
    /// A name that no model has means the first.
    any_name: bool,
}

impl ServedModel {
    /// A model whose files were not read yet.
    pub fn new(
        id: ModelId,
        (name, aliases): (String, Vec<String>),
        (tokenizer, template): (Arc<Tokenizer>, Template),
        facts: ModelFacts,
    ) -> ServedModel {
        let end_tokens = tokenizer.end_tokens().into();
        let source = template.get().map(ChatTemplate::source);
        let uses_tools = template.get().is_some_and(ChatTemplate::uses_tools);
        let format = Format::of(source, uses_tools, &tokenizer);
        let fingerprint = OnceLock::new();
        ServedModel {
            id,
            name,
            aliases,
            tokenizer,
            end_tokens,
            format,
            guides: OnceLock::new(),
            template,
            facts,
            fingerprint,
        }
    }

    /// What compiles grammars for its vocabulary. The first call takes some tenths of a second for a large one.
    ///
    /// # Errors
    ///
    /// The vocabulary is too large for grammars.
    pub fn guides(&self) -> Result<&Guides, GrammarError> {
        let made = self
            .guides
            .get_or_init(|| Guides::new(Arc::clone(&self.tokenizer), &self.format.mark_tokens()));
        made.as_ref().map_err(Clone::clone)
    }

    /// Whether a client that asks for `name` means this model. Letters may be large or small, and
    /// `:latest` may follow, as with Ollama.
    fn is_called(&self, name: &str) -> bool {
        let wanted = bare(name);
        let mut known = [&self.name].into_iter().chain(&self.aliases);
        known.any(|known| bare(known) == wanted)
    }
}

fn bare(name: &str) -> String {
    let cut = name.len().saturating_sub(LATEST.len());
    let latest = name.get(cut..).is_some_and(|end| end.eq_ignore_ascii_case(LATEST));
    name[..if latest { cut } else { name.len() }].to_lowercase()
}

impl Registry {
    /// These models are loaded; with `any_name` the first answers to every name.
    pub fn new(models: Vec<Arc<ServedModel>>, any_name: bool) -> Registry {
        Registry { models: RwLock::new(models), any_name }
    }

    /// The model with this name or alias; `None` if there is none.
    pub fn find(&self, name: &str) -> Option<Arc<ServedModel>> {
        self.called(name).or_else(|| self.first().filter(|_| self.any_name))
    }

    /// The model that is called so, and no other.
    pub fn called(&self, name: &str) -> Option<Arc<ServedModel>> {
        self.iter().find(|model| model.is_called(name))
    }

    /// The one for requests that name none: of those that are loaded the first.
    pub fn first(&self) -> Option<Arc<ServedModel>> {
        self.iter().next()
    }

    /// All that are loaded at this moment.
    pub fn iter(&self) -> impl Iterator<Item = Arc<ServedModel>> + use<> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).clone().into_iter()
    }

    /// One more model. Whether a name is free is for who adds it to see.
    pub fn add(&self, model: Arc<ServedModel>) {
        self.models.write().unwrap_or_else(PoisonError::into_inner).push(model);
    }

    /// A model is gone.
    pub fn remove(&self, id: ModelId) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.retain(|model| model.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_engine::gguf::Metadata;

    fn model(id: u32, name: &str, aliases: &[&str]) -> Arc<ServedModel> {
        let metadata: Metadata = crate::http::tests::support::metadata();
        let tokenizer = Arc::new(Tokenizer::from_metadata(&metadata).unwrap());
        let template = Template::of_model(&metadata, &tokenizer);
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        let (names, texts) = ((name.to_owned(), aliases), (tokenizer, template));
        Arc::new(ServedModel::new(ModelId(id), names, texts, ModelFacts::default()))
    }

    #[test]
    fn a_model_is_found_by_its_name_and_aliases_in_any_case() {
        let models = || vec![model(0, "Tiny", &["gpt-4", "org/tiny"]), model(1, "other", &[])];
        let registry = Registry::new(models(), false);
        let find = |name: &str| registry.find(name).map(|model| model.id.0);
        for name in ["Tiny", "tiny", "TINY:latest", "gpt-4", "GPT-4:Latest", "org/tiny"] {
            assert_eq!(find(name), Some(0), "{name}");
        }
        assert_eq!(find("other:latest"), Some(1));
        assert_eq!((find("tin"), find("tiny:7b"), find("")), (None, None, None));
        assert_eq!((registry.first().unwrap().id, registry.iter().count()), (ModelId(0), 2));
        let any = Registry::new(models(), true);
        assert_eq!(any.find("nobody").map(|model| model.id.0), Some(0));
        assert_eq!(any.find("other").map(|model| model.id.0), Some(1));
        assert!(any.called("nobody").is_none());
    }

    #[test]
    fn models_come_and_go_and_there_may_be_none() {
        let registry = Registry::new(Vec::new(), true);
        assert!(registry.first().is_none() && registry.find("one").is_none());
        registry.add(model(4, "one", &[]));
        registry.add(model(5, "two", &[]));
        let held = registry.find("one").unwrap();
        registry.remove(ModelId(4));
        assert_eq!((held.name.as_str(), registry.first().unwrap().id), ("one", ModelId(5)));
    }
}
