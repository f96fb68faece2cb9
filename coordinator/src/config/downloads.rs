//! Where downloaded models are kept, and what the environment says of the network.

use super::variable;
use crate::exit::Fatal;
use crate::fetch::{HUGGING_FACE, Link, Network, Proxies, Roots, Store};
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use woolly_protocol::hidden::Hidden;

/// Where downloaded models are kept.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct CacheDirArgs {
    /// Where downloaded models are kept, in a folder `models`
    /// [default: $XDG_CACHE_HOME/woolly or ~/.cache/woolly]
    #[arg(long, env = "WOOLLY_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

impl CacheDirArgs {
    /// The store of downloaded models.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`] when neither the flag nor `XDG_CACHE_HOME` nor `HOME` says where.
    pub fn store(&self) -> Result<Store, Fatal> {
        let named = |name: &str| variable(name.as_ref());
        cache_dir_from(self.cache_dir.clone(), named("XDG_CACHE_HOME"), named("HOME"))
            .map(|dir| Store::new(&dir))
    }
}

fn cache_dir_from(
    flag: Option<PathBuf>,
    xdg: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf, Fatal> {
    if let Some(path) = flag {
        return std::path::absolute(&path)
            .map_err(|error| Fatal::usage(format!("--cache-dir {}: {error}", path.display())));
    }
    // The XDG specification tells programs to ignore a relative path.
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    xdg.and_then(absolute)
        .or_else(|| home.and_then(absolute).map(|home| home.join(".cache")))
        .map(|base| base.join("woolly"))
        .ok_or_else(|| {
            Fatal::usage("neither XDG_CACHE_HOME nor HOME is set: say where with --cache-dir DIR")
        })
}

/// How servers of models are asked: `HF_ENDPOINT`, `HF_TOKEN`, `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
/// `NO_PROXY`. An empty variable is none; of a proxy's two spellings the small one counts.
///
/// # Errors
///
/// [`Fatal::Usage`] for an endpoint that is none.
pub fn network() -> Result<Network, Fatal> {
    network_from(|name| variable(name.as_ref())?.into_string().ok())
}

fn network_from(read: impl Fn(&str) -> Option<String>) -> Result<Network, Fatal> {
    let one =
        |name: &str| read(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let either = |name: &str| one(&name.to_ascii_lowercase()).or_else(|| one(name));
    let proxy = |name: &str| either(name).or_else(|| either("ALL_PROXY")).map(Hidden::from);
    let endpoint = one("HF_ENDPOINT").unwrap_or_else(|| HUGGING_FACE.to_owned());
    let wrong = |why: &str| Fatal::usage(format!("HF_ENDPOINT: {why}"));
    let endpoint = Link::parse(&endpoint).map_err(|error| wrong(&error))?;
    if !endpoint.path().trim_end_matches('/').is_empty() {
        return Err(wrong("expected a server alone, such as https://huggingface.co"));
    }
    Ok(Network {
        endpoint,
        token: one("HF_TOKEN").map(Hidden::from),
        proxies: Proxies {
            https: proxy("HTTPS_PROXY"),
            http: proxy("HTTP_PROXY"),
            none_for: either("NO_PROXY").unwrap_or_default(),
        },
        roots: Roots::Machine,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_flags_or_the_users() {
        let dir = |flag: Option<&str>, xdg: Option<&str>, home: Option<&str>| {
            cache_dir_from(flag.map(Into::into), xdg.map(Into::into), home.map(Into::into))
                .map(|path| path.display().to_string())
                .map_err(|fatal| fatal.to_string())
        };
        assert_eq!(dir(Some("/a"), Some("/b"), None), Ok("/a".into()));
        assert_eq!(dir(None, Some("/b"), Some("/c")), Ok("/b/woolly".into()));
        assert_eq!(dir(None, Some("relative"), Some("/c")), Ok("/c/.cache/woolly".into()));
        assert!(dir(None, None, None).unwrap_err().contains("--cache-dir"));
    }

    #[test]
    fn the_environment_says_who_is_asked_and_in_which_way() {
        let of = |pairs: &'static [(&str, &str)]| {
            network_from(move |name| {
                pairs.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let network =
            of(&[("HTTPS_PROXY", "http://a"), ("https_proxy", "http://b"), ("HF_TOKEN", " ")]);
        let network = network.unwrap();
        assert_eq!(network.endpoint.origin(), HUGGING_FACE);
        assert_eq!(network.proxies.https, Some("http://b".into()));
        assert!(network.proxies.http.is_none() && network.token.is_none());
        let all =
            of(&[("ALL_PROXY", "http://c"), ("HF_ENDPOINT", "https://mirror.example/")]).unwrap();
        assert_eq!(all.proxies.http, Some("http://c".into()));
        assert_eq!(all.endpoint.origin(), "https://mirror.example");
        for wrong in ["mirror", "https://mirror/path", "https://u:p@mirror"] {
            let error = network_from(|name| (name == "HF_ENDPOINT").then(|| wrong.to_owned()));
            assert!(error.unwrap_err().to_string().contains("HF_ENDPOINT"), "{wrong}");
        }
    }
}
