//! Names of the files of a split model: `NAME-00001-of-00003.gguf`.

/// Files of a split model at most.
pub const PARTS_MAX: u32 = 1000;

/// The place of a file in a split model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartName<'a> {
    /// Folders and name, without the number.
    pub prefix: &'a str,
    /// From 1.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

impl<'a> PartName<'a> {
    /// What a path or a name says of it; `None` if the model is a single file.
    pub fn of(path: &'a str) -> Option<PartName<'a>> {
        let stem = path.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let (number, count) = (digits(number)?, digits(count)?);
        let is_one = (1..=PARTS_MAX).contains(&count) && (1..=count).contains(&number);
        is_one.then_some(PartName { prefix, number, count })
    }

    /// The names of all, in order.
    pub fn all(self) -> impl Iterator<Item = String> + 'a {
        let PartName { prefix, count, .. } = self;
        (1..=count).map(move |number| format!("{prefix}-{number:05}-of-{count:05}.gguf"))
    }
}

fn digits(text: &str) -> Option<u32> {
    let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(text)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_names_the_others() {
        let part = PartName::of("Q4/m-00002-of-00003.gguf").unwrap();
        assert_eq!((part.prefix, part.number, part.count), ("Q4/m", 2, 3));
        let all: Vec<String> = part.all().collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0], "Q4/m-00001-of-00003.gguf");
        for other in ["m.gguf", "m-00004-of-00003.gguf", "m-1-of-3.gguf", "m-00000-of-00003.gguf"] {
            assert_eq!(PartName::of(other), None, "{other}");
        }
    }
}
