//! The folder of `--model-dir`: which models can be loaded by name.
//!
//! A name is the path of a GGUF file below the folder, with `/` between folders and without `.gguf`; a split
//! model is one name, without the number of a part. Nothing outside the folder has a name: no `..`, no absolute
//! path, and no link that leads out of it. The files are looked for when somebody asks: models that are put
//! there while the server runs are found.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Folders below the folder.
const DEPTH_MAX: usize = 8;
/// Entries of folders that are looked at for one list.
const ENTRIES_MAX: usize = 100_000;
/// Models of one list.
pub const LISTED_MAX: usize = 1000;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 1024;

/// A folder of models.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Without links.
    root: PathBuf,
}

/// A model that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnShelf {
    /// Its name.
    pub name: String,
    /// Bytes of its files, as far as they are there.
    pub bytes: u64,
}

/// What is on the shelf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// By name.
    pub models: Vec<OnShelf>,
    /// Whether there is more than was looked at.
    pub is_cut: bool,
}

impl Shelf {
    /// The folder at `root`.
    ///
    /// # Errors
    ///
    /// It is no folder that can be read.
    pub fn open(root: &Path) -> io::Result<Shelf> {
        let root = root.canonicalize()?;
        fs::read_dir(&root)?;
        Ok(Shelf { root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All models, up to the limits. What cannot be read is left out. Blocks.
    pub fn list(&self) -> Stock {
        let (mut stock, mut looked) = (Stock::default(), 0);
        let mut folders = vec![(self.root.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                looked += 1;
                if looked > ENTRIES_MAX || stock.models.len() > LISTED_MAX {
                    stock.is_cut = true;
                    break;
                }
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => {
                        folders.push((entry.path(), depth + 1));
                    }
                    Ok(kind) if !kind.is_dir() => self.note(&entry, &mut stock.models),
                    _ => {}
                }
            }
        }
        stock.models.sort_by(|a, b| a.name.cmp(&b.name));
        // Parts of a split model are one.
        stock.models.dedup_by(|next, first| {
            let is_same = next.name == first.name;
            first.bytes += if is_same { next.bytes } else { 0 };
            is_same
        });
        stock.is_cut |= stock.models.len() > LISTED_MAX;
        stock.models.truncate(LISTED_MAX);
        stock
    }

    fn note(&self, entry: &DirEntry, models: &mut Vec<OnShelf>) {
        let path = entry.path();
        let Ok(below) = path.strip_prefix(&self.root) else { return };
        let Some(name) = below.to_str().and_then(name_of) else { return };
        if let Some(bytes) = self.bytes_of(&path) {
            models.push(OnShelf { name, bytes });
        }
    }

    /// Bytes of a file that is inside, links followed.
    fn bytes_of(&self, path: &Path) -> Option<u64> {
        let real = path.canonicalize().ok().filter(|real| real.starts_with(&self.root))?;
        let data = real.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(data.len())
    }

    /// The model that is called so, with or without `.gguf` and `:latest`: its name, and its file or the first
    /// part of it. `None` if there is none. Blocks.
    pub fn find(&self, name: &str) -> Option<(String, PathBuf)> {
        let name = name.strip_suffix(":latest").unwrap_or(name);
        let name = name.strip_suffix(".gguf").unwrap_or(name);
        let is_inside = |part| matches!(part, Component::Normal(_));
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return None;
        }
        if !Path::new(name).components().all(is_inside) {
            return None;
        }
        let whole = self.root.join(format!("{name}.gguf"));
        if self.bytes_of(&whole).is_some() {
            return Some((name.to_owned(), whole));
        }
        let folder = whole.parent()?;
        let stem = Path::new(name).file_name()?.to_str()?;
        let entries = fs::read_dir(folder).ok()?.flatten().take(ENTRIES_MAX);
        let first = entries.map(|entry| entry.path()).find(|path| {
            let part = path.file_name().and_then(|file| file.to_str()).and_then(part_of);
            part.is_some_and(|(model, number)| model == stem && number == 1)
        });
        let first = first.filter(|path| self.bytes_of(path).is_some())?;
        Some((name.to_owned(), first))
    }
}

/// The name of the model of a file, by its path below the folder; `None` if it is no model's.
fn name_of(below: &str) -> Option<String> {
    let stem = below.strip_suffix(".gguf")?;
    if below.len() > NAME_BYTES_MAX || below.chars().any(char::is_control) {
        return None;
    }
    let (folder, file) =
        below.rsplit_once('/').map_or(("", below), |(folder, file)| (folder, file));
    match part_of(file) {
        Some((model, _)) if folder.is_empty() => Some(model.to_owned()),
        Some((model, _)) => Some(format!("{folder}/{model}")),
        None => Some(stem.to_owned()),
    }
}

/// The model and the number of a part: `NAME-00001-of-00003.gguf`.
fn part_of(file: &str) -> Option<(&str, u32)> {
    let (rest, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (model, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(count) && is_number(number)).then_some((model, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn shelf(files: &[&str]) -> (tempfile::TempDir, Shelf) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join("shelf").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"GGUF").unwrap();
        }
        let shelf = Shelf::open(&folder.path().join("shelf")).unwrap();
        (folder, shelf)
    }

    fn names(shelf: &Shelf) -> Vec<String> {
        shelf.list().models.into_iter().map(|model| model.name).collect()
    }

    #[test]
    fn names_are_paths_below_the_folder_and_a_split_model_is_one() {
        let (_folder, shelf) = shelf(&[
            "b.gguf",
            "org/a.gguf",
            "org/big-00001-of-00002.gguf",
            "org/big-00002-of-00002.gguf",
            "notes.txt",
            "half-00002-of-00002.gguf",
        ]);
        assert_eq!(names(&shelf), ["b", "half", "org/a", "org/big"]);
        assert_eq!(shelf.list().models[3].bytes, 8);
        let found = |name| {
            let (name, path) = shelf.find(name)?;
            Some((name, path.strip_prefix(shelf.root()).unwrap().to_str().unwrap().to_owned()))
        };
        let is = |name: &str, path: &str| Some((name.to_owned(), path.to_owned()));
        assert_eq!(found("org/a"), is("org/a", "org/a.gguf"));
        assert_eq!(found("org/a:latest"), is("org/a", "org/a.gguf"));
        assert_eq!(found("b.gguf"), is("b", "b.gguf"));
        assert_eq!(found("org/big"), is("org/big", "org/big-00001-of-00002.gguf"));
        // Without its first part it is no model.
        assert_eq!(found("half"), None);
        assert_eq!((found("a"), found("notes.txt"), found("")), (None, None, None));
    }

    #[test]
    fn nothing_outside_the_folder_has_a_name() {
        let (folder, shelf) = shelf(&["in/real.gguf"]);
        let outside = folder.path().join("secret.gguf");
        fs::write(&outside, b"GGUF").unwrap();
        symlink(&outside, shelf.root().join("out.gguf")).unwrap();
        symlink(folder.path(), shelf.root().join("up")).unwrap();
        symlink(shelf.root().join("in/real.gguf"), shelf.root().join("alias.gguf")).unwrap();
        assert_eq!(names(&shelf), ["alias", "in/real"]);
        let absolute = outside.display().to_string();
        let bad =
            ["../secret", "in/../../secret", "./in/real", "/in/real", "out", "up/secret", "a\0b"];
        for name in bad.into_iter().chain([absolute.as_str(), absolute.trim_end_matches(".gguf")]) {
            assert_eq!(shelf.find(name), None, "{name}");
        }
        assert!(shelf.find("alias").is_some(), "a link that stays inside");
        assert_eq!(shelf.find(&"x/".repeat(2000)), None);
    }
}
