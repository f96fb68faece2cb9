//! The bytes of the journal's file. All numbers are little-endian.
//!
//! A record is a mark, a kind, the stream's number, a length, a checksum of these, the payload, and a checksum of
//! all. Checksums are the first eight bytes of BLAKE3.

use super::VERSION;

/// Bytes of the file's head.
pub const FILE_HEAD: usize = 256;
/// Bytes of a record beside its payload.
pub const RECORD_BYTES: usize = HEAD + CHECK;
/// Bytes of a record's payload: a body of 8 MiB, and the rest of an entry.
pub const PAYLOAD_MAX: usize = (8 << 20) + ENTRY_FIXED;

const MAGIC: &[u8; 8] = b"woollyj\n";
const MARK: &[u8; 4] = b"\nrec";
const CHECK: usize = 8;
/// Mark, kind, number, length, checksum.
const HEAD: usize = 4 + 1 + 16 + 4 + CHECK;
/// An entry without its body.
const ENTRY_FIXED: usize = 8 + 8 + 1 + 3 * 32;
/// Bytes of a name in the file's head.
const NAME_MAX: usize = 64;

/// All that tokens depend on beside a model and a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The program's version.
    pub program: String,
    /// The version of what is said on the wire.
    pub protocol: u32,
    /// The order of operations.
    pub numerics: u32,
    /// The library of grammars, with its version.
    pub grammar: String,
}

/// A request that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The stream's number.
    pub number: u128,
    /// When it came, in seconds since 1970.
    pub created: u64,
    /// What its random choices follow from.
    pub seed: u64,
    /// Which API it came by; the gateway knows what that means.
    pub api: u8,
    /// Whose it is: see [`Journal::seal`](super::Journal::seal).
    pub key: [u8; 32],
    /// The model's fingerprint.
    pub fingerprint: [u8; 32],
    /// A hash of what was to be computed: computed again it must be the same.
    pub meaning: [u8; 32],
    /// The request as it came.
    pub body: Vec<u8>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Of this choice's prompt a cache held so many tokens.
    Cached {
        /// Its index.
        choice: u32,
        /// How many.
        tokens: u32,
    },
    /// Its answer is complete.
    Finished,
    /// Nobody can ask for it any more.
    Ended,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A request.
    Accepted(Box<Entry>),
    /// What became of it.
    Noted(u128, Note),
    /// It cannot be read: whose it is, if that is known.
    Damaged(Option<u128>),
}

/// The head of a file with this salt.
pub fn file_head(stamp: &Stamp, salt: &[u8; 32]) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    for number in [VERSION, stamp.protocol, stamp.numerics] {
        head.extend(number.to_le_bytes());
    }
    head.extend(salt);
    for name in [&stamp.program, &stamp.grammar] {
        let bytes = &name.as_bytes()[..name.len().min(NAME_MAX)];
        head.push(bytes.len() as u8);
        head.extend(bytes);
    }
    head.resize(FILE_HEAD - CHECK, 0);
    head.extend(check(&head));
    head
}

/// What the head of a file says: its version, stamp and salt. `None` if it is no journal, or its head is damaged.
pub fn read_file_head(bytes: &[u8]) -> Option<(u32, Stamp, [u8; 32])> {
    let head = bytes.get(..FILE_HEAD)?;
    let (all, sum) = head.split_at(FILE_HEAD - CHECK);
    let mut left = all.strip_prefix(MAGIC)?;
    if check(all) != sum {
        return None;
    }
    let version = take_u32(&mut left)?;
    let (protocol, numerics) = (take_u32(&mut left)?, take_u32(&mut left)?);
    let salt = take(&mut left)?;
    let mut name = || {
        let [len] = take::<1>(&mut left)?;
        let (name, rest) = left.split_at_checked(usize::from(len))?;
        left = rest;
        String::from_utf8(name.to_vec()).ok()
    };
    let (program, grammar) = (name()?, name()?);
    Some((version, Stamp { program, protocol, numerics, grammar }, salt))
}

impl Stamp {
    /// What differs from this build, in words; `None` if nothing does.
    pub fn differs(&self, ours: &Stamp) -> Option<String> {
        let facts = [
            ("version", self.program.clone(), ours.program.clone()),
            ("PROTOCOL", self.protocol.to_string(), ours.protocol.to_string()),
            ("NUMERICS", self.numerics.to_string(), ours.numerics.to_string()),
            ("grammar library", self.grammar.clone(), ours.grammar.clone()),
        ];
        let differ = facts.iter().filter(|(_, theirs, ours)| theirs != ours);
        let words: Vec<String> =
            differ.map(|(what, theirs, ours)| format!("{what} {theirs}, now {ours}")).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// An accepted request as a record.
pub fn accepted(entry: &Entry) -> Vec<u8> {
    let mut payload = Vec::with_capacity(ENTRY_FIXED + entry.body.len());
    payload.extend(entry.created.to_le_bytes());
    payload.extend(entry.seed.to_le_bytes());
    payload.push(entry.api);
    for hash in [&entry.key, &entry.fingerprint, &entry.meaning] {
        payload.extend(hash);
    }
    payload.extend(&entry.body);
    record(1, entry.number, &payload)
}

/// A note as a record.
pub fn noted(number: u128, note: Note) -> Vec<u8> {
    match note {
        Note::Cached { choice, tokens } => {
            let payload = [choice.to_le_bytes(), tokens.to_le_bytes()].concat();
            record(2, number, &payload)
        }
        Note::Finished => record(3, number, &[]),
        Note::Ended => record(4, number, &[]),
    }
}

fn record(kind: u8, number: u128, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a body is at most 8 MiB");
    let mut bytes = Vec::with_capacity(RECORD_BYTES + payload.len());
    bytes.extend(MARK);
    bytes.push(kind);
    bytes.extend(number.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(check(&bytes));
    bytes.extend(payload);
    bytes.extend(check(&bytes));
    bytes
}

/// Reads records one after the other, each with its place and length in the file.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Of a whole file, behind its head.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: FILE_HEAD.min(bytes.len()) }
    }

    /// Where the next good record begins, from here on; `None` if there is none.
    fn next_head(&self) -> Option<(usize, u8, u128, usize)> {
        let mut at = self.at;
        loop {
            let rest = self.bytes.get(at..)?;
            let found = rest.windows(MARK.len()).position(|window| window == MARK)?;
            at += found;
            if let Some((kind, number, len)) = head_at(&self.bytes[at..]) {
                return Some((at, kind, number, len));
            }
            at += 1;
        }
    }
}

impl Iterator for Reader<'_> {
    type Item = (usize, usize, Record);

    /// The next record; a last one that is torn is none.
    fn next(&mut self) -> Option<Self::Item> {
        let (at, kind, number, len) = self.next_head()?;
        if at > self.at {
            // What lies between is a record, or several, of which not even the head can be read.
            let from = std::mem::replace(&mut self.at, at);
            return Some((from, at - from, Record::Damaged(None)));
        }
        let whole = RECORD_BYTES + len;
        let bytes = self.bytes.get(at..at + whole)?;
        self.at = at + whole;
        let (all, sum) = bytes.split_at(whole - CHECK);
        let read = if check(all) == sum { read(kind, number, &all[HEAD..]) } else { None };
        Some((at, whole, read.unwrap_or(Record::Damaged(Some(number)))))
    }
}

/// Kind, number and length of the record that begins here.
fn head_at(bytes: &[u8]) -> Option<(u8, u128, usize)> {
    let (all, sum) = bytes.get(..HEAD)?.split_at(HEAD - CHECK);
    let mut left = all.strip_prefix(MARK)?;
    let [kind] = take(&mut left)?;
    let number = u128::from_le_bytes(take(&mut left)?);
    let len = take_u32(&mut left)? as usize;
    (check(all) == sum && len <= PAYLOAD_MAX).then_some((kind, number, len))
}

fn read(kind: u8, number: u128, payload: &[u8]) -> Option<Record> {
    let mut left = payload;
    let note = match kind {
        1 => {
            let created = u64::from_le_bytes(take(&mut left)?);
            let seed = u64::from_le_bytes(take(&mut left)?);
            let [api] = take(&mut left)?;
            let (key, fingerprint) = (take(&mut left)?, take(&mut left)?);
            let (meaning, body) = (take(&mut left)?, left.to_vec());
            let entry = Entry { number, created, seed, api, key, fingerprint, meaning, body };
            return Some(Record::Accepted(Box::new(entry)));
        }
        2 => Note::Cached { choice: take_u32(&mut left)?, tokens: take_u32(&mut left)? },
        3 => Note::Finished,
        4 => Note::Ended,
        _ => return None,
    };
    Some(Record::Noted(number, note))
}

fn take<const N: usize>(left: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = left.split_first_chunk::<N>()?;
    *left = rest;
    Some(*first)
}

fn take_u32(left: &mut &[u8]) -> Option<u32> {
    take(left).map(u32::from_le_bytes)
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let hash = *blake3::hash(bytes).as_bytes();
    *hash.first_chunk().expect("a hash is longer")
}
