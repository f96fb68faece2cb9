//! Which library says what a grammar allows: another one might allow other tokens.

/// Its name and version.
pub const LIBRARY: &str = "llguidance 1.9.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_is_built_in() {
        let lock = include_str!("../../../Cargo.lock");
        let mut packages = lock.split("[[package]]");
        let ours = packages.find(|package| package.contains("name = \"llguidance\"\n")).unwrap();
        let version = LIBRARY.split(' ').next_back().unwrap();
        assert!(ours.contains(&format!("version = \"{version}\"")), "LIBRARY is not {ours}");
    }
}
