//! Flags of the KV cache: how values are held, what is given out together, what is kept.

use crate::scheduler::PrefixCache;
use clap::Args;
use woolly_engine::plan::{BLOCK_LEN, KvType};

/// The longest block, in positions: a sequence wastes half a block on average, and only full blocks
/// are shared.
const BLOCK_SIZE_MAX: u32 = 1024;

/// How the KV cache is held and shared, the same on every worker.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "KV cache")]
pub struct CacheArgs {
    /// How keys and values are held: f16, or q8_0 (8.5 bits per value, almost twice the tokens)
    #[arg(long, env = "WOOLLY_CACHE_TYPE", value_name = "TYPE", default_value = "f16")]
    #[arg(value_parser = parse_cache_type)]
    pub cache_type: KvType,
    /// Tokens per block of the cache, a multiple of 32 up to 1024: only full blocks are shared
    #[arg(long, env = "WOOLLY_BLOCK_SIZE", value_name = "TOKENS", default_value_t = BLOCK_LEN)]
    #[arg(value_parser = parse_block_size)]
    pub block_size: u32,
    /// Whose prompts a request may share computed prefixes with: key (its own API key's), shared
    /// (everyone's; how fast an answer begins then tells what others have asked) or off
    #[arg(long, env = "WOOLLY_PREFIX_CACHE", value_name = "WHOSE", default_value = "key")]
    #[arg(value_parser = parse_prefix_cache)]
    pub prefix_cache: PrefixCache,
    /// Which of the blocks that nobody uses is given up first: lru, the one that was not used for
    /// longest
    #[arg(long, env = "WOOLLY_PREFIX_CACHE_EVICTION", value_name = "HOW", default_value = "lru")]
    #[arg(value_parser = ["lru"], hide_possible_values = true)]
    pub prefix_cache_eviction: String,
    /// Refused unless `off`: compressing blocks by how full the cache is would make an answer depend
    /// on other users' load
    #[arg(long, env = "WOOLLY_CACHE_COMPRESS", value_name = "HOW", default_value = "off")]
    #[arg(value_parser = parse_cache_compress, hide = true)]
    pub cache_compress: Uncompressed,
}

/// That blocks are never compressed: the only value of `--cache-compress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncompressed;

pub(super) fn parse_cache_type(text: &str) -> Result<KvType, String> {
    let named = KvType::ALL.into_iter().find(|ty| ty.name() == text);
    named.ok_or_else(|| format!("expected {}", KvType::ALL.map(KvType::name).join(" or ")))
}

fn parse_prefix_cache(text: &str) -> Result<PrefixCache, String> {
    match text {
        "off" => Ok(PrefixCache::Off),
        "key" => Ok(PrefixCache::Key),
        "shared" => Ok(PrefixCache::Shared),
        _ => Err("expected off, key or shared".to_owned()),
    }
}

fn parse_block_size(text: &str) -> Result<u32, String> {
    let whole =
        |size: &u32| (BLOCK_LEN..=BLOCK_SIZE_MAX).contains(size) && size.is_multiple_of(BLOCK_LEN);
    text.parse().ok().filter(whole).ok_or_else(|| {
        format!(
            "expected a multiple of {BLOCK_LEN} from {BLOCK_LEN} to {BLOCK_SIZE_MAX}: the workers \
             compute attention over {BLOCK_LEN} positions at a time"
        )
    })
}

fn parse_cache_compress(text: &str) -> Result<Uncompressed, String> {
    if text == "off" {
        return Ok(Uncompressed);
    }
    Err("compressing blocks by how full the cache is would make a request's tokens depend on other \
         users' load, and equal requests get equal tokens here; --cache-type q8_0 holds almost \
         twice the tokens, whatever the load is"
        .to_owned())
}
