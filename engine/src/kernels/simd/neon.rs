//! NEON with the dot product of bytes: four rows per panel.
#![allow(clippy::missing_safety_doc, reason = "the trait says it")]

use super::{Rows, Simd};
use std::arch::aarch64::*;
use std::arch::asm;

/// The instruction set.
#[derive(Clone, Copy)]
pub struct Neon;

/// Transposes the dwords of four vectors.
#[inline(always)]
unsafe fn transpose(z: [int32x4_t; 4]) -> [int32x4_t; 4] {
    // SAFETY: registers only; the caller is on a machine with the instructions.
    unsafe {
        let pair = |a, b| {
            let (even, odd) = (vtrn1q_s32(a, b), vtrn2q_s32(a, b));
            (vreinterpretq_s64_s32(even), vreinterpretq_s64_s32(odd))
        };
        let (a, b) = pair(z[0], z[1]);
        let (c, d) = pair(z[2], z[3]);
        [
            vreinterpretq_s32_s64(vtrn1q_s64(a, c)),
            vreinterpretq_s32_s64(vtrn1q_s64(b, d)),
            vreinterpretq_s32_s64(vtrn2q_s64(a, c)),
            vreinterpretq_s32_s64(vtrn2q_s64(b, d)),
        ]
    }
}

/// `a` shifted right, zeros from above.
#[inline(always)]
unsafe fn logical<const N: i32>(a: int32x4_t) -> int32x4_t {
    // SAFETY: registers only; the caller is on a machine with the instructions.
    unsafe { vreinterpretq_s32_u32(vshrq_n_u32::<N>(vreinterpretq_u32_s32(a))) }
}

/// Halves to floats; exact.
#[inline(always)]
unsafe fn widened(halves: int16x4_t) -> float32x4_t {
    // SAFETY: registers only; the caller is on a machine with the instructions.
    unsafe { vcvt_f32_f16(vreinterpret_f16_s16(halves)) }
}

impl Simd for Neon {
    const LANES: usize = 4;
    const PANELS: usize = 2;
    // Both factors of its dot product are signed.
    const WIDE_BIAS: Option<u32> = None;
    type I = int32x4_t;
    type F = float32x4_t;

    #[inline(always)]
    unsafe fn splat(v: i32) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vdupq_n_s32(v) }
    }
    #[inline(always)]
    unsafe fn splat_f(v: f32) -> float32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vdupq_n_f32(v) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const i32) -> int32x4_t {
        // SAFETY: the caller has a value at `from`; the machine has the instructions.
        unsafe { vld1q_dup_s32(from) }
    }
    #[inline(always)]
    unsafe fn broadcast_f(from: *const f32) -> float32x4_t {
        // SAFETY: the caller has a value at `from`; the machine has the instructions.
        unsafe { vld1q_dup_f32(from) }
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> int32x4_t {
        // SAFETY: the caller has a vector of values at `from`; the machine has the instructions.
        unsafe { vld1q_s32(from) }
    }
    #[inline(always)]
    unsafe fn load_f(from: *const f32) -> float32x4_t {
        // SAFETY: the caller has a vector of values at `from`; the machine has the instructions.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn load_halves(from: *const u16) -> float32x4_t {
        // SAFETY: the caller has 16 bits for each lane at `from`; the machine has the instructions.
        unsafe { widened(vreinterpret_s16_u16(vld1_u16(from))) }
    }
    #[inline(always)]
    unsafe fn load_bfloats(from: *const u16) -> float32x4_t {
        // SAFETY: the caller has 16 bits for each lane at `from`; the machine has the instructions.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut i32, v: int32x4_t) {
        // SAFETY: the caller has room for a vector at `to`; the machine has the instructions.
        unsafe { vst1q_s32(to, v) }
    }
    #[inline(always)]
    unsafe fn store_f(to: *mut f32, v: float32x4_t) {
        // SAFETY: the caller has room for a vector at `to`; the machine has the instructions.
        unsafe { vst1q_f32(to, v) }
    }
    #[inline(always)]
    unsafe fn and(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vandq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vorrq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn or_masked(a: int32x4_t, b: int32x4_t, mask: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vorrq_s32(a, vandq_s32(b, mask)) }
    }
    #[inline(always)]
    unsafe fn shr<const N: i32>(a: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { logical::<N>(a) }
    }
    #[inline(always)]
    unsafe fn shl<const N: i32>(a: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vshlq_n_s32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn shl_by(a: int32x4_t, n: u32) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vshlq_s32(a, vdupq_n_s32(n as i32)) }
    }
    #[inline(always)]
    unsafe fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vaddq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vsubq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn byte<const K: i32>(a: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            let low = vdupq_n_s32(0xff);
            match K {
                0 => vandq_s32(a, low),
                1 => vandq_s32(logical::<8>(a), low),
                2 => vandq_s32(logical::<16>(a), low),
                _ => logical::<24>(a),
            }
        }
    }
    #[inline(always)]
    unsafe fn signed_byte<const K: i32>(a: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            let top = match K {
                0 => vshlq_n_s32::<24>(a),
                1 => vshlq_n_s32::<16>(a),
                2 => vshlq_n_s32::<8>(a),
                _ => a,
            };
            vshrq_n_s32::<24>(top)
        }
    }
    #[inline(always)]
    unsafe fn widen(a: int32x4_t) -> int32x4_t {
        a
    }
    #[inline(always)]
    unsafe fn table(values: &[i8; 16]) -> int32x4_t {
        // SAFETY: sixteen bytes are there; the machine has the instructions.
        unsafe { vreinterpretq_s32_s8(vld1q_s8(values.as_ptr())) }
    }
    #[inline(always)]
    unsafe fn lookup(table: int32x4_t, indices: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe {
            let (table, indices) = (vreinterpretq_s8_s32(table), vreinterpretq_u8_s32(indices));
            vreinterpretq_s32_s8(vqtbl1q_s8(table, indices))
        }
    }
    #[inline(always)]
    unsafe fn from_bits(a: int32x4_t) -> float32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vreinterpretq_f32_s32(a) }
    }
    #[inline(always)]
    unsafe fn to_f(a: int32x4_t) -> float32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vcvtq_f32_s32(a) }
    }
    #[inline(always)]
    unsafe fn half_low(a: int32x4_t) -> float32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { widened(vmovn_s32(a)) }
    }
    #[inline(always)]
    unsafe fn half_high(a: int32x4_t) -> float32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { widened(vshrn_n_s32::<16>(a)) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn neg(a: float32x4_t) -> float32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { vnegq_f32(a) }
    }
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, w: int32x4_t, y: int32x4_t) -> int32x4_t {
        // SAFETY: the instruction touches the three registers that it is given and no memory; the
        // machine has it.
        unsafe {
            let mut sum = acc;
            // The intrinsic is not stable.
            asm!(
                "sdot {sum:v}.4s, {w:v}.16b, {y:v}.16b",
                sum = inout(vreg) sum,
                w = in(vreg) w,
                y = in(vreg) y,
                options(pure, nomem, nostack, preserves_flags),
            );
            sum
        }
    }
    #[inline(always)]
    unsafe fn dot_wide(acc: int32x4_t, w: int32x4_t, y: int32x4_t) -> int32x4_t {
        // SAFETY: registers only; the caller is on a machine with the instructions.
        unsafe { Self::dot(acc, w, y) }
    }
    #[inline(always)]
    unsafe fn dwords_8(rows: Rows, offset: usize) -> [int32x4_t; 8] {
        // SAFETY: all rows of the panel have 32 bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe { Self::dwords_4_4(rows, offset, offset + 16) }
    }
    #[inline(always)]
    unsafe fn dwords_4_4(rows: Rows, first: usize, second: usize) -> [int32x4_t; 8] {
        // SAFETY: all rows of the panel have sixteen bytes from `first` and from `second` on, by
        // the caller; the machine has the instructions.
        unsafe {
            let [a, b, c, d] = Self::dwords_4(rows, first);
            let [e, f, g, h] = Self::dwords_4(rows, second);
            [a, b, c, d, e, f, g, h]
        }
    }
    #[inline(always)]
    unsafe fn dwords_4(rows: Rows, offset: usize) -> [int32x4_t; 4] {
        // SAFETY: all rows of the panel have sixteen bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe {
            let row = |r: usize| vreinterpretq_s32_u8(vld1q_u8(rows.at(r, offset)));
            transpose([row(0), row(1), row(2), row(3)])
        }
    }
    #[inline(always)]
    unsafe fn dword(rows: Rows, offset: usize) -> int32x4_t {
        // SAFETY: all rows of the panel have four bytes from `offset` on, by the caller; the
        // machine has the instructions.
        unsafe {
            let d = |r: usize| rows.at(r, offset).cast::<i32>().read_unaligned();
            let dwords = [d(0), d(1), d(2), d(3)];
            vld1q_s32(dwords.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a hint: nothing shows, whatever the address; the machine has the instruction.
        unsafe {
            // As above.
            asm!(
                "prfm pldl1keep, [{from}]",
                from = in(reg) from,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}
