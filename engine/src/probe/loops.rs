//! The inner loops of the machine's probes: reading memory and multiplying bytes, as fast as it goes.
//!
//! They use the widest instructions that the machine has, whatever [`Level`](crate::kernels::Level) the
//! kernels are held to: what they find is a limit of the machine. Knows no kernel.

#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected as has;

/// The CPUs that the calling thread may run on, ascending; empty if the system does not say.
pub fn allowed_cpus() -> Vec<usize> {
    let mut set = empty_set();
    // SAFETY: the set is as long as said, and zero is the calling thread.
    let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0;
    let bits = if failed { 0 } else { 8 * size_of_val(&set) };
    // SAFETY: the number is below the bits of the set.
    (0..bits).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Binds the calling thread to one CPU; `false` if the system does not let it.
pub fn pin(cpu: usize) -> bool {
    let mut set = empty_set();
    if cpu >= 8 * size_of_val(&set) {
        return false;
    }
    // SAFETY: the number is below the bits of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is as long as said, and zero is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) == 0 }
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: a set of CPUs is an array of integers.
    unsafe { std::mem::zeroed() }
}

/// Bytes that a round of the widest loop adds up.
const LINES: usize = 256;

/// The wrapping sum of the native 64-bit words of `bytes`; up to seven bytes at the end are left out.
pub fn sum_words(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if has!("avx512f") {
            // SAFETY: the machine has the instructions.
            return unsafe { sum_avx512(bytes) };
        }
        if has!("avx2") {
            // SAFETY: as above.
            return unsafe { sum_avx2(bytes) };
        }
    }
    sum_scalar(bytes)
}

/// Portable; the compiler makes it as wide as the target's baseline.
fn sum_scalar(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0;
    words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(bytes: &[u8]) -> u64 {
    use std::arch::x86_64::{_mm512_add_epi64, _mm512_loadu_si512, _mm512_reduce_add_epi64};
    let mut sums = [std::arch::x86_64::_mm512_setzero_si512(); LINES / 64];
    let (lines, rest) = bytes.as_chunks::<LINES>();
    for line in lines {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 64 of the line's 256 bytes.
            let words = unsafe { _mm512_loadu_si512(line.as_ptr().add(64 * i).cast()) };
            *sum = _mm512_add_epi64(*sum, words);
        }
    }
    let total = sums.into_iter().map(|sum| _mm512_reduce_add_epi64(sum) as u64);
    total.fold(sum_scalar(rest), u64::wrapping_add)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u64 {
    use std::arch::x86_64::{_mm256_add_epi64, _mm256_extract_epi64, _mm256_loadu_si256};
    let mut sums = [std::arch::x86_64::_mm256_setzero_si256(); LINES / 32];
    let (lines, rest) = bytes.as_chunks::<LINES>();
    for line in lines {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 32 of the line's 256 bytes.
            let words = unsafe { _mm256_loadu_si256(line.as_ptr().add(32 * i).cast()) };
            *sum = _mm256_add_epi64(*sum, words);
        }
    }
    let sum = sums.into_iter().reduce(|a, b| _mm256_add_epi64(a, b)).expect("eight sums");
    let halves = [
        _mm256_extract_epi64::<0>(sum),
        _mm256_extract_epi64::<1>(sum),
        _mm256_extract_epi64::<2>(sum),
        _mm256_extract_epi64::<3>(sum),
    ];
    halves.into_iter().fold(sum_scalar(rest), |sum, part| sum.wrapping_add(part as u64))
}

/// Multiply-adds of signed bytes in registers only, with one kind of instruction.
#[derive(Clone, Copy, Debug)]
pub struct Int8Loop {
    /// The instruction, for people.
    pub name: &'static str,
    /// Multiply-adds of one round.
    pub macs: u64,
    /// Computes that many rounds; returns one of the 32-bit sums that they add to.
    run: fn(u32) -> i32,
    /// What one round adds to that sum.
    #[cfg_attr(not(test), allow(dead_code, reason = "the tests compare with it"))]
    adds: i32,
}

/// The value of all bytes on the unsigned side and on the signed side.
const FACTORS: (i8, i8) = (7, 3);

impl Int8Loop {
    /// The widest that this machine has.
    pub fn widest() -> Self {
        *Self::available().last().expect("the scalar loop is always there")
    }

    /// All that this machine has, narrowest first.
    pub fn available() -> Vec<Self> {
        let product = i32::from(FACTORS.0) * i32::from(FACTORS.1);
        let mut loops =
            vec![Self { name: "scalar", macs: 1 << 10, run: scalar, adds: 1024 * product }];
        let mut add = |name, macs, run, adds| loops.push(Self { name, macs, run, adds });
        #[cfg(target_arch = "x86_64")]
        {
            if has!("avx2") {
                add("vpmaddubsw ymm", 4 * 32, x86::maddubs_256, 4 * product);
            }
            if has!("avxvnni") {
                add("vpdpbusd ymm", 12 * 32, x86::dpbusd_256, 4 * product);
            }
            if has!("avx512bw") {
                add("vpmaddubsw zmm", 4 * 64, x86::maddubs_512, 4 * product);
            }
            if has!("avx512vnni") {
                add("vpdpbusd zmm", 12 * 64, x86::dpbusd_512, 4 * product);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                add("sdot", 16 * 16, arm::sdot, 4 * product);
            }
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                add("smmla", 16 * 32, arm::smmla, 8 * product);
            }
        }
        loops
    }

    /// Computes that many rounds, at least 1.
    pub fn run(&self, rounds: u32) -> i32 {
        (self.run)(rounds.max(1))
    }
}

fn scalar(rounds: u32) -> i32 {
    let (a, b) = ([FACTORS.0; 1 << 10], [FACTORS.1; 1 << 10]);
    (0..rounds).fold(0i32, |sum, _| {
        let (a, b) = (std::hint::black_box(&a), std::hint::black_box(&b));
        let products = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b));
        sum.wrapping_add(products.sum())
    })
}

/// Loops in assembly, so that no compiler finds out that they compute the same again and again.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::FACTORS;
    use std::arch::asm;

    /// A loop of `$body`, lines of assembly, over registers of `$reg`: sums in 0 to 11, factors in
    /// 14 (unsigned) and 15 (signed), words of one in 13.
    macro_rules! int8_loop {
        ($name:ident, $reg:literal, [$($body:expr),* $(,)?]) => {
            // All vector registers are lost at a call, the upper parts that no clobber names too.
            #[inline(never)]
            pub(super) fn $name(rounds: u32) -> i32 {
                let bytes = |byte: i8| i32::from_ne_bytes([byte as u8; 4]);
                let first: i32;
                // SAFETY: the loop is offered only where the machine has the instructions; it
                // writes the registers named and touches no memory.
                unsafe {
                    asm!(
                        "vmovd xmm13, {ones:e}",
                        "vmovd xmm14, {unsigned:e}",
                        "vmovd xmm15, {signed:e}",
                        concat!("vpbroadcastd ", $reg, "13, xmm13"),
                        concat!("vpbroadcastd ", $reg, "14, xmm14"),
                        concat!("vpbroadcastd ", $reg, "15, xmm15"),
                        "vpxor xmm0, xmm0, xmm0",
                        // A copy of zeros: what these start from does not matter, but is set.
                        "vmovdqa xmm1, xmm0", "vmovdqa xmm2, xmm0", "vmovdqa xmm3, xmm0",
                        "vmovdqa xmm4, xmm0", "vmovdqa xmm5, xmm0", "vmovdqa xmm6, xmm0",
                        "vmovdqa xmm7, xmm0", "vmovdqa xmm8, xmm0", "vmovdqa xmm9, xmm0",
                        "vmovdqa xmm10, xmm0", "vmovdqa xmm11, xmm0",
                        "2:",
                        $($body,)*
                        "dec {rounds:e}",
                        "jnz 2b",
                        "vmovd {first:e}, xmm0",
                        "vzeroupper",
                        rounds = inout(reg) rounds => _,
                        ones = in(reg) 0x0001_0001,
                        unsigned = in(reg) bytes(FACTORS.0),
                        signed = in(reg) bytes(FACTORS.1),
                        first = out(reg) first,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        options(nomem, nostack),
                    );
                }
                first
            }
        };
    }

    /// Twelve sums: more than two a cycle times the latency of four or five.
    macro_rules! dpbusd {
        ($name:ident, $encoding:literal, $reg:literal) => {
            int8_loop!(
                $name,
                $reg,
                [
                    concat!($encoding, "vpdpbusd ", $reg, "0, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "1, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "2, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "3, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "4, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "5, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "6, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "7, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "8, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "9, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "10, ", $reg, "14, ", $reg, "15"),
                    concat!($encoding, "vpdpbusd ", $reg, "11, ", $reg, "14, ", $reg, "15"),
                ]
            );
        };
    }
    dpbusd!(dpbusd_256, "{{vex}} ", "ymm");
    dpbusd!(dpbusd_512, "", "zmm");

    /// Four chains of products of bytes, sums of pairs of words, and the addition.
    macro_rules! maddubs {
        ($name:ident, $reg:literal) => {
            int8_loop!(
                $name,
                $reg,
                [
                    concat!("vpmaddubsw ", $reg, "4, ", $reg, "14, ", $reg, "15"),
                    concat!("vpmaddubsw ", $reg, "5, ", $reg, "14, ", $reg, "15"),
                    concat!("vpmaddubsw ", $reg, "6, ", $reg, "14, ", $reg, "15"),
                    concat!("vpmaddubsw ", $reg, "7, ", $reg, "14, ", $reg, "15"),
                    concat!("vpmaddwd ", $reg, "4, ", $reg, "4, ", $reg, "13"),
                    concat!("vpmaddwd ", $reg, "5, ", $reg, "5, ", $reg, "13"),
                    concat!("vpmaddwd ", $reg, "6, ", $reg, "6, ", $reg, "13"),
                    concat!("vpmaddwd ", $reg, "7, ", $reg, "7, ", $reg, "13"),
                    concat!("vpaddd ", $reg, "0, ", $reg, "0, ", $reg, "4"),
                    concat!("vpaddd ", $reg, "1, ", $reg, "1, ", $reg, "5"),
                    concat!("vpaddd ", $reg, "2, ", $reg, "2, ", $reg, "6"),
                    concat!("vpaddd ", $reg, "3, ", $reg, "3, ", $reg, "7"),
                ]
            );
        };
    }
    maddubs!(maddubs_256, "ymm");
    maddubs!(maddubs_512, "zmm");
}

/// As [`x86`].
#[cfg(target_arch = "aarch64")]
mod arm {
    use super::FACTORS;
    use std::arch::aarch64::{int8x16_t, vdupq_n_s8};
    use std::arch::asm;

    macro_rules! products {
        ($name:ident, $body:ident, $feature:literal, $instruction:literal) => {
            pub(super) fn $name(rounds: u32) -> i32 {
                // SAFETY: the loop is offered only where the machine has the instructions.
                unsafe { $body(rounds) }
            }

            #[target_feature(enable = $feature)]
            fn $body(rounds: u32) -> i32 {
                let mut first: int8x16_t = vdupq_n_s8(0);
                // SAFETY: only the registers named are written; memory is not touched.
                unsafe {
                    asm!(
                        "2:",
                        concat!($instruction, " v0.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v1.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v2.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v3.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v4.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v5.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v6.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v7.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v18.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v19.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v20.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v21.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v22.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v23.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v24.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v25.4s, v16.16b, v17.16b"),
                        "subs {rounds:w}, {rounds:w}, #1",
                        "b.ne 2b",
                        rounds = inout(reg) rounds => _,
                        inout("v0") first,
                        in("v16") vdupq_n_s8(FACTORS.0),
                        in("v17") vdupq_n_s8(FACTORS.1),
                        out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
                        out("v6") _, out("v7") _, out("v18") _, out("v19") _, out("v20") _,
                        out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
                        options(nomem, nostack),
                    );
                }
                // SAFETY: a vector is at least four bytes of integers.
                unsafe { std::ptr::from_ref(&first).cast::<i32>().read() }
            }
        };
    }
    products!(sdot, sdot_body, "neon,dotprod", "sdot");
    products!(smmla, smmla_body, "neon,i8mm", "smmla");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_read_add_up_the_same() {
        let bytes: Vec<u8> = (0..3 * LINES as u32 + 100)
            .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
            .collect();
        for len in (0..=64).chain([LINES - 1, LINES, LINES + 8, bytes.len() - 1]) {
            for start in [0, 1] {
                let part = &bytes[start..start + len];
                let words = part.chunks_exact(8);
                let sum = words.fold(0u64, |sum, word| {
                    sum.wrapping_add(u64::from_ne_bytes(word.try_into().unwrap()))
                });
                assert_eq!(sum_scalar(part), sum);
                assert_eq!(sum_words(part), sum);
                #[cfg(target_arch = "x86_64")]
                if has!("avx2") {
                    // SAFETY: the machine has the instructions.
                    assert_eq!(unsafe { sum_avx2(part) }, sum);
                }
            }
        }
    }

    #[test]
    fn every_loop_multiplies_what_it_says() {
        for int8 in Int8Loop::available() {
            for rounds in [1, 2, 1000] {
                assert_eq!(int8.run(rounds), rounds as i32 * int8.adds, "{}", int8.name);
            }
        }
    }

    #[test]
    fn a_thread_can_be_bound_to_each_cpu_it_may_use() {
        let cpus = allowed_cpus();
        assert!(!cpus.is_empty());
        std::thread::spawn(move || {
            for cpu in cpus {
                assert!(pin(cpu));
                assert_eq!(allowed_cpus(), [cpu]);
            }
            assert!(!pin(usize::MAX));
        })
        .join()
        .unwrap();
    }
}
