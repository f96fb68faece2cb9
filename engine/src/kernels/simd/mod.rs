//! What the vector kernels need of an instruction set, so that each kernel is written once.
//!
//! A vector has one 32-bit lane per weight row of a panel. Every operation is exact or rounds once, as
//! the scalar definition does, so a kernel gives the same bits on every implementation.
//!
//! Implementations are inlined into functions that were compiled for their instructions; calling one
//! anywhere else, or on a machine without them, is undefined. That is why all of them are unsafe.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;

/// Up to sixteen consecutive weight rows of a matrix, at the quant block that is next in each.
///
/// Multiples of the stride are kept so that every row is one address computation away from a few
/// registers; left to itself the compiler keeps sixteen pointers, most of them on the stack.
#[derive(Clone, Copy)]
pub struct Rows {
    base: *const u8,
    stride: usize,
    by_3: usize,
    by_5: usize,
    by_7: usize,
    eighth: *const u8,
}

impl Rows {
    /// Rows from `base` on, `stride` bytes from one to the next.
    #[inline(always)]
    pub fn new(base: *const u8, stride: usize) -> Self {
        let (by_3, by_5, by_7) = (3 * stride, 5 * stride, 7 * stride);
        Self { base, stride, by_3, by_5, by_7, eighth: base.wrapping_add(8 * stride) }
    }

    /// The address of byte `offset` of row `row`'s block.
    ///
    /// # Safety
    ///
    /// The row exists and has this byte.
    #[inline(always)]
    pub unsafe fn at(self, row: usize, offset: usize) -> *const u8 {
        let base = if row < 8 { self.base } else { self.eighth };
        let rows = match row % 8 {
            0 => 0,
            1 => self.stride,
            2 => 2 * self.stride,
            3 => self.by_3,
            4 => 4 * self.stride,
            5 => self.by_5,
            6 => 2 * self.by_3,
            _ => self.by_7,
        };
        base.wrapping_add(rows).wrapping_add(offset)
    }

    /// The rows `bytes` further on.
    #[inline(always)]
    pub fn advanced(self, bytes: usize) -> Self {
        let mut stride = self.stride;
        // Without this the compiler turns every row into a pointer of its own again.
        // SAFETY: no instruction at all.
        unsafe {
            std::arch::asm!(
                "/* {0} */", inout(reg) stride, options(nomem, nostack, preserves_flags)
            );
        }
        Self::new(self.base.wrapping_add(bytes), stride)
    }
}

/// Asks for the cache line at `from`, which need not exist, in the second-level cache.
#[inline(always)]
pub fn prefetch_far(from: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this kind has the instruction; it has no effect that shows.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(from.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "prfm pldl2keep, [{0}]", in(reg) from, options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = from;
}

/// One instruction set. `I` has [`LANES`](Self::LANES) 32-bit integers, each also four bytes; `F` as
/// many floats.
///
/// # Safety
///
/// All functions: the machine has the instructions. Those with pointers: the memory is there.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Simd: Copy {
    /// Weight rows of a panel.
    const LANES: usize;
    /// Panels that it takes together: 1 or 2.
    const PANELS: usize;
    /// Quants of 8-bit formats have `1 << WIDE_BIAS` added by [`widen`](Self::widen); `None` for 0.
    const WIDE_BIAS: Option<u32>;
    /// Integers.
    type I: Copy;
    /// Floats.
    type F: Copy;

    /// All lanes `v`.
    unsafe fn splat(v: i32) -> Self::I;
    /// All lanes `v`.
    unsafe fn splat_f(v: f32) -> Self::F;
    /// The same 32 bits from memory in all lanes.
    unsafe fn broadcast(from: *const i32) -> Self::I;
    /// The same float from memory in all lanes.
    unsafe fn broadcast_f(from: *const f32) -> Self::F;
    /// Consecutive integers.
    unsafe fn load(from: *const i32) -> Self::I;
    /// Consecutive floats.
    unsafe fn load_f(from: *const f32) -> Self::F;
    /// Consecutive halves.
    unsafe fn load_halves(from: *const u16) -> Self::F;
    /// Consecutive bfloats.
    unsafe fn load_bfloats(from: *const u16) -> Self::F;
    /// To consecutive integers.
    unsafe fn store(to: *mut i32, v: Self::I);
    /// To consecutive floats.
    unsafe fn store_f(to: *mut f32, v: Self::F);

    /// Bits of both.
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    /// Bits of either.
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// `a` with the bits of `b` that `mask` has.
    unsafe fn or_masked(a: Self::I, b: Self::I, mask: Self::I) -> Self::I;
    /// Zeros shifted in from above.
    unsafe fn shr<const N: i32>(a: Self::I) -> Self::I;
    /// Zeros shifted in from below.
    unsafe fn shl<const N: i32>(a: Self::I) -> Self::I;
    /// Shifted left by a number that is the same for all lanes.
    unsafe fn shl_by(a: Self::I, n: u32) -> Self::I;
    /// Sum.
    unsafe fn add(a: Self::I, b: Self::I) -> Self::I;
    /// Difference.
    unsafe fn sub(a: Self::I, b: Self::I) -> Self::I;
    /// Byte `K` of each lane, 0 to 255.
    unsafe fn byte<const K: i32>(a: Self::I) -> Self::I;
    /// Byte `K` of each lane, −128 to 127.
    unsafe fn signed_byte<const K: i32>(a: Self::I) -> Self::I;
    /// The lanes' bytes, each with its top bit flipped, if that is how
    /// [`dot_wide`](Self::dot_wide) takes signed quants.
    unsafe fn widen(a: Self::I) -> Self::I;

    /// Sixteen bytes, again and again.
    unsafe fn table(values: &[i8; 16]) -> Self::I;
    /// For each byte of `indices`, 0 to 15, the byte of the table.
    unsafe fn lookup(table: Self::I, indices: Self::I) -> Self::I;
    /// The same bits as floats.
    unsafe fn from_bits(a: Self::I) -> Self::F;

    /// Rounded to the nearest float, ties to even.
    unsafe fn to_f(a: Self::I) -> Self::F;
    /// The half in the low 16 bits of each lane.
    unsafe fn half_low(a: Self::I) -> Self::F;
    /// The half in the high 16 bits of each lane.
    unsafe fn half_high(a: Self::I) -> Self::F;
    /// Product.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// With the other sign.
    unsafe fn neg(a: Self::F) -> Self::F;

    /// `acc + Σ w·y` over each lane's four bytes; `w` is 0 to 127, `y` −127 to 127.
    unsafe fn dot(acc: Self::I, w: Self::I, y: Self::I) -> Self::I;
    /// As [`dot`](Self::dot) for quants that went through [`widen`](Self::widen).
    unsafe fn dot_wide(acc: Self::I, w: Self::I, y: Self::I) -> Self::I;

    /// Bytes `offset..offset + 32` of each row: result `i` has dword `i` of every row.
    unsafe fn dwords_8(rows: Rows, offset: usize) -> [Self::I; 8];
    /// Bytes `first..first + 16` and `second..second + 16` of each row, as above.
    unsafe fn dwords_4_4(rows: Rows, first: usize, second: usize) -> [Self::I; 8];
    /// Bytes `offset..offset + 16` of each row, as above.
    unsafe fn dwords_4(rows: Rows, offset: usize) -> [Self::I; 4];
    /// Bytes `offset..offset + 4` of each row.
    unsafe fn dword(rows: Rows, offset: usize) -> Self::I;
    /// Asks for the cache line at `from`, which need not exist.
    unsafe fn prefetch(from: *const u8);
}
