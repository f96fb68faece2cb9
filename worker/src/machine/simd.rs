//! The instruction set that the kernels use, as people name it.

use woolly_engine::kernels::Level;

/// All levels that there are on some machine, and the word for the best one.
const NAMES: [&str; 6] = ["auto", "scalar", "avx2", "avxvnni", "avx512", "neon"];

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd(Level);

impl Default for Simd {
    /// The best one.
    fn default() -> Self {
        Simd(Level::best())
    }
}

impl Simd {
    /// Reads a value of `--simd` or `WOOLLY_SIMD`.
    ///
    /// # Errors
    ///
    /// The machine does not have it, or there is no such name; the sentence names those that can be
    /// chosen.
    pub fn parse(text: &str) -> Result<Simd, String> {
        if text == NAMES[0] {
            return Ok(Simd::default());
        }
        let levels = Level::available();
        if let Some(level) = levels.iter().find(|level| level.name() == text) {
            return Ok(Simd(*level));
        }
        let wrong = if NAMES.contains(&text) {
            format!("this machine does not have {text}")
        } else {
            "no such level".to_owned()
        };
        let names: Vec<&str> = levels.iter().map(|level| level.name()).collect();
        Err(format!("{wrong}; expected auto, {}", names.join(", ")))
    }

    /// Its name in logs and flags.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The engine's word for it.
    pub fn level(self) -> Level {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_the_machine_has_a_name_and_auto_is_the_best() {
        for level in Level::available() {
            assert!(NAMES.contains(&level.name()), "{} is not a known name", level.name());
            assert_eq!(Simd::parse(level.name()), Ok(Simd(level)));
        }
        assert_eq!(Simd::parse("auto"), Ok(Simd(Level::best())));
    }

    #[test]
    fn other_names_are_refused_with_those_that_there_are() {
        let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        for (text, why) in [("sse9", "no such"), ("", "no such"), ("AVX2", "no such")] {
            let error = Simd::parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains("auto, scalar"), "{text}: {error}");
        }
        let error = Simd::parse(foreign).unwrap_err();
        assert!(error.contains("does not have") && error.contains("auto, scalar"), "{error}");
    }
}
