//! What a hostile header claims takes no memory: the process stays small (G-04, G-05, G-11 to G-13).
//!
//! The only test of its binary, because it measures the whole process.

use std::fs;

use woolly_engine::gguf::{Gguf, HeaderPart};

/// Address space, in bytes, that the process may gain over all cases: small buffers only.
const GAIN_MAX: u64 = 16 << 20;

/// A figure of this process's address space, in bytes: `VmSize` now, `VmPeak` the most so far.
fn address_space(figure: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with(figure)).expect("Linux has it");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

fn header(tensors: u64, pairs: u64, rest: &[&[u8]]) -> Vec<u8> {
    let counts = [tensors.to_le_bytes(), pairs.to_le_bytes()].concat();
    let mut bytes = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &counts].concat();
    rest.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.resize(bytes.len() + 160, 0);
    bytes
}

/// A pair with a key of one byte, then its type.
fn pair(ty: u32) -> Vec<u8> {
    [1u64.to_le_bytes().as_slice(), b"k", &ty.to_le_bytes()].concat()
}

#[test]
fn claims_take_no_memory() {
    let mut cases = Vec::new();
    for count in [u64::MAX, 1 << 63, 1 << 32, 65_536, 5_000] {
        cases.push(header(count, 0, &[]));
        cases.push(header(0, count, &[]));
    }
    for len in [u64::MAX, 1 << 40, 1 << 30, 64 << 20, 1000] {
        cases.push(header(0, 1, &[&len.to_le_bytes()]));
        cases.push(header(0, 1, &[&pair(8), &len.to_le_bytes()]));
        cases.push(header(1, 0, &[&len.to_le_bytes()]));
        for element in 0..13u32 {
            let array = [element.to_le_bytes().as_slice(), &len.to_le_bytes()].concat();
            cases.push(header(0, 1, &[&pair(9), &array]));
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("hostile.gguf");
    // The start of a thread takes address space and gives it back. Taken again, untouched, every
    // further byte shows in the peak.
    let spare = address_space("VmPeak") - address_space("VmSize");
    let ballast: Vec<u8> = vec![0; usize::try_from(spare).expect("a process is not that large")];
    let before = address_space("VmPeak");
    for bytes in cases {
        fs::write(&path, &bytes).expect("a small file");
        Gguf::open(&path).expect_err("more than the file has");
        // The sender of a header can claim any size of the file behind it.
        for file_size in [bytes.len() as u64, 1 << 40, u64::MAX] {
            let part = HeaderPart { file_name: "m".into(), bytes: bytes.clone(), file_size };
            Gguf::from_headers(vec![part]).expect_err("more than the header has");
        }
    }
    let gain = address_space("VmPeak") - before;
    drop(ballast);
    assert!(gain < GAIN_MAX, "the process grew by {gain} bytes");
}
