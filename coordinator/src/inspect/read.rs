//! Reads a model as far as it goes, and collects all that speaks against it.

use super::keys::Keys;
use super::reckon;
use super::report::{
    Context, FORMAT, File, Format, Kind, Layers, Memory, Parameters, Report, Template, Tokens,
    Unused,
};
use crate::models::Model;
use crate::models::model::positions;
use std::path::Path;
use woolly_engine::chat_template::{ChatTemplate, family};
use woolly_engine::gguf::Shown;
use woolly_engine::gguf::survey::{Survey, SurveyTensor};
use woolly_engine::plan::Findings;
use woolly_engine::tokenizer::Tokenizer;

/// What is said of the model at `path`, with a cache of `ctx_size` positions per sequence. Its weights are
/// read if `reads_weights`. Blocks for as long as that takes.
pub fn report(path: &Path, ctx_size: Option<u32>, reads_weights: bool) -> Report {
    let survey = Survey::read(path);
    let (keys, tensors) = (Keys::new(survey.metadata()), survey.tensors());
    let findings = findings(&survey);
    let formats = reckon::formats(tensors);
    let mut not_supported: Vec<String> =
        survey.problems().iter().map(ToString::to_string).collect();
    not_supported.extend(findings.refusals.iter().cloned());
    not_supported.extend(formats.iter().filter(|f| !f.is_supported).map(not_computed));
    let (tokenizer, tokens) = vocabulary(&survey, &keys, &mut not_supported);
    let mut warnings = Vec::new();
    let chat_template = template(&survey, &keys, tokenizer.as_ref(), &mut warnings);
    agree_with_serve(path, &mut not_supported);
    if reads_weights && not_supported.is_empty() {
        not_supported.extend(wrong_scales(&survey));
    }
    let trained = keys.number("context_length");
    let reckoned =
        trained.map(|trained| positions(u32::try_from(trained).unwrap_or(u32::MAX), ctx_size));
    let shape = keys.shape();
    let has_divisors = tensors.iter().any(|tensor| tensor.name.starts_with("rope_freqs."));
    Report {
        format: FORMAT,
        is_supported: not_supported.is_empty(),
        not_supported,
        warnings,
        name: name(path, &keys),
        files: survey.files().map(|(path, bytes)| file(&path, bytes)).collect(),
        bytes: survey.files().map(|(_, bytes)| bytes).sum(),
        architecture: keys.architecture.map(|text| Shown(text.as_bytes()).to_string()),
        quantisation: findings.layout.as_ref().map(|layout| layout.file_type.clone()),
        parameters: parameters(tensors, &findings),
        layers: layers(&keys, &findings),
        rotary: keys.rotary(shape.head_dim, has_divisors),
        shape,
        context: Context { trained, reckoned },
        tokenizer: tokens,
        chat_template,
        roles: reckon::roles(tensors),
        unused: unused(tensors, &findings),
        memory: memory(&findings, reckoned),
        formats,
    }
}

/// What follows from the metadata and the tensors; nothing of a file whose metadata could not be read.
fn findings(survey: &Survey) -> Findings {
    let is_read = survey.metadata().keys().next().is_some();
    let gguf = survey.as_if_computed().filter(|_| is_read);
    gguf.map(|gguf| Findings::of(&gguf, survey.is_whole())).unwrap_or_default()
}

fn not_computed(format: &Format) -> String {
    let Format { format, tensors, .. } = format;
    let (tensors, have) = match tensors {
        1 => ("1 tensor".to_owned(), "has"),
        n => (format!("{n} tensors"), "have"),
    };
    format!("{tensors} {have} the type {format}, which Woolly does not compute with")
}

/// `serve` has the last word: what it refuses for a reason that was not found is told as it tells it.
fn agree_with_serve(path: &Path, not_supported: &mut Vec<String>) {
    if let Err(fatal) = Model::open(path)
        && not_supported.is_empty()
    {
        not_supported.push(fatal.line());
    }
}

/// Weights that stand for no number, of a file that is whole.
fn wrong_scales(survey: &Survey) -> Vec<String> {
    match survey.as_if_computed().map(|gguf| gguf.wrong_scales()) {
        None => Vec::new(),
        Some(Ok(found)) => found.iter().map(ToString::to_string).collect(),
        Some(Err(error)) => vec![format!("its weights cannot be read: {error}")],
    }
}

fn vocabulary(
    survey: &Survey,
    keys: &Keys<'_>,
    not_supported: &mut Vec<String>,
) -> (Option<Tokenizer>, Tokens) {
    let text = |key| keys.text(key).map(|text| Shown(text.as_bytes()).to_string());
    let mut tokens = Tokens {
        model: text("tokenizer.ggml.model"),
        pre: text("tokenizer.ggml.pre"),
        count: keys.tokens(),
        ..Tokens::default()
    };
    // Of a file that is cut off, parts of the vocabulary may be behind the cut.
    if !survey.is_whole() {
        return (None, tokens);
    }
    match Tokenizer::from_metadata(survey.metadata()) {
        Ok(tokenizer) => {
            tokens.is_supported = true;
            tokens.bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
            tokens.ends = tokenizer.end_tokens().to_vec();
            (Some(tokenizer), tokens)
        }
        Err(error) => {
            not_supported.push(error.to_string());
            (None, tokens)
        }
    }
}

fn template(
    survey: &Survey,
    keys: &Keys<'_>,
    tokenizer: Option<&Tokenizer>,
    warnings: &mut Vec<String>,
) -> Template {
    let own = keys.text("tokenizer.chat_template");
    let read = tokenizer.map(|tokenizer| ChatTemplate::from_metadata(survey.metadata(), tokenizer));
    let source = match &read {
        Some(Ok(Some(template))) => Some(template.source()),
        Some(Ok(None)) => {
            warnings.push(
                "it has no chat template: conversations are refused unless serve is given \
                 --chat-template-file"
                    .to_owned(),
            );
            own
        }
        Some(Err(error)) => {
            warnings.push(format!(
                "its chat template cannot be used, so conversations are refused unless serve is given \
                 --chat-template-file: {error}"
            ));
            own
        }
        None => own,
    };
    Template {
        family: source.map_or("none", |source| family(source).unwrap_or("unknown")).to_owned(),
        bytes: own.map_or(0, str::len),
        is_supported: matches!(read, Some(Ok(Some(_)))),
        has_tool_template: keys.text("tokenizer.chat_template.tool_use").is_some(),
    }
}

fn name(path: &Path, keys: &Keys<'_>) -> String {
    let own = keys.text("general.name").map(str::trim).filter(|name| !name.is_empty());
    let file = path.file_stem().unwrap_or_default().to_string_lossy();
    Shown(own.unwrap_or(&file).as_bytes()).to_string()
}

fn file(path: &Path, bytes: u64) -> File {
    File { path: Shown(path.as_os_str().as_encoded_bytes()).to_string(), bytes }
}

fn parameters(tensors: &[SurveyTensor], findings: &Findings) -> Parameters {
    reckon::parameters(tensors, findings)
}

fn layers(keys: &Keys<'_>, findings: &Findings) -> Layers {
    let mut kinds: Vec<Kind> = Vec::new();
    for (index, kind) in findings.kinds.iter().enumerate() {
        let found = Kind {
            count: 1,
            first: index,
            window: kind.window,
            experts: kind.experts,
            experts_used: kind.experts_used,
            width: kind.width,
            shared_width: kind.shared_width,
        };
        let same = kinds.iter_mut().find(|have| {
            let numbered = |kind: &Kind| {
                (kind.window, kind.experts, kind.experts_used, kind.width, kind.shared_width)
            };
            numbered(have) == numbered(&found)
        });
        match same {
            Some(have) => have.count += 1,
            None => kinds.push(found),
        }
    }
    let nextn = keys.number("nextn_predict_layers").unwrap_or(0);
    Layers { count: keys.number("block_count"), nextn, kinds }
}

fn unused(tensors: &[SurveyTensor], findings: &Findings) -> Unused {
    let layout = findings.layout.as_ref();
    layout.map(|layout| reckon::unused(tensors, layout)).unwrap_or_default()
}

fn memory(findings: &Findings, context: Option<u32>) -> Option<Memory> {
    let context = context.filter(|context| *context > 0)?;
    findings.layout.as_ref().map(|layout| reckon::memory(layout, context))
}
