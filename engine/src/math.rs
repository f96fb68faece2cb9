//! Our own `exp`, `ln`, `sin` and `cos`: the same operations, and so the same bits, everywhere.
//!
//! The standard library's go to the platform's libm, whose last bit differs between systems and
//! versions. `f32` routines are for vector kernels (no branch, no call); `f64` ones are for tables
//! and log-probabilities.

/// `eˣ` within 2 ulp. Below −87.3 it is 0, above 88.7 infinity; NaN stays NaN; `exp(0)` is 1.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding it rounds to an integer and leaves that integer in the low bits of the mantissa.
    const MAGIC: f32 = 12_582_912.0;
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.mul_add(LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_HIGH, x);
    let r = n.mul_add(-LN2_LOW, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let p = (p * r).mul_add(r, r) + 1.0;
    // Two factors, because 2ⁿ alone overflows at n = 128.
    let n = (shifted.to_bits().wrapping_sub(MAGIC.to_bits())) as i32;
    let half = n >> 1;
    let first = f32::from_bits(((half.wrapping_add(127)) as u32) << 23);
    let second = f32::from_bits(((n.wrapping_sub(half).wrapping_add(127)) as u32) << 23);
    let y = p * first * second;
    let y = if x < -87.336_54 { 0.0 } else { y };
    if x > 88.722_83 { f32::INFINITY } else { y }
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`, as `x · sigmoid` of twice what tanh is given.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769_2;
    let inner = (0.044_715 * x * x).mul_add(x, x);
    x / (1.0 + exp(-TWICE_ROOT * inner))
}

/// The hyperbolic tangent, within a millionth of its value; NaN stays NaN.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // Near 0 the difference below would lose what is left of x: an odd polynomial there (Taylor).
    let square = x * x;
    let p = (-0.053_968_254_f32).mul_add(square, 0.133_333_33);
    let p = p.mul_add(square, -0.333_333_34);
    let near = (p * square).mul_add(x, x);
    let far = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    if x.abs() < 0.2 { near } else { far }
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `eˣ` in double precision, within a few ulp, for |x| below 700.
pub fn exp64(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let n = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    // Taylor: |r| ≤ 0.347, so the term of order 14 is below 2⁻⁵³.
    let mut p = 1.0;
    for k in (1..=14).rev() {
        p = (p * r / f64::from(k)) + 1.0;
    }
    p * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// The natural logarithm of a positive, finite, normal number, within a few ulp.
pub fn ln64(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh s with s = (m − 1)/(m + 1), |s| ≤ 0.172: s²² is below 2⁻⁵³.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for k in (0..=11).rev() {
        sum = sum * square + 1.0 / f64::from(2 * k + 1);
    }
    (2.0 * s).mul_add(sum, exponent as f64 * std::f64::consts::LN_2)
}

/// `(sin x, cos x)` for |x| below 2³¹, within 1e-9 for the angles that a context can reach.
pub fn sin_cos64(x: f64) -> (f64, f64) {
    // π/2 in three parts of which the first two have 33 bits: n times them is exact for n < 2²⁰.
    const P1: f64 = 1.570_796_326_734_125_6;
    const P2: f64 = 6.077_100_506_303_966e-11;
    const P3: f64 = 2.022_266_248_795_950_6e-21;
    let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
    let r = n.mul_add(-P3, n.mul_add(-P2, n.mul_add(-P1, x)));
    let square = r * r;
    let (mut sin, mut cos) = (1.0, 1.0);
    for k in (1..=8).rev() {
        let k = f64::from(k);
        sin = 1.0 - sin * square / ((2.0 * k) * (2.0 * k + 1.0));
        cos = 1.0 - cos * square / ((2.0 * k - 1.0) * (2.0 * k));
    }
    let sin = sin * r;
    match (n as i64) & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_whole_range() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        for i in -870_000..887_000 {
            let x = i as f32 * 1e-4;
            let truth = f64::from(x).exp();
            let error = (f64::from(exp(x)) - truth).abs() / truth;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "exp({x}) is off by {error}");
        }
    }

    #[test]
    fn tanh_is_close_over_its_whole_range() {
        for i in -200_000..200_000 {
            let x = i as f32 * 1e-4;
            let truth = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - truth).abs() < 1e-6 * truth.abs().max(1e-3), "tanh({x})");
        }
        assert_eq!((tanh(0.0), tanh(100.0), tanh(-100.0)), (0.0, 1.0, -1.0));
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_is_its_formula() {
        for i in -8000..8000 {
            let x = f64::from(i) * 1e-3;
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            let truth = 0.5 * x * (1.0 + inner.tanh());
            assert!((f64::from(gelu(x as f32)) - truth).abs() < 2e-6, "gelu({x})");
        }
        assert_eq!((gelu(0.0), gelu(100.0), gelu(-100.0)), (0.0, 100.0, 0.0));
    }

    #[test]
    fn double_precision_routines_agree_with_the_platform() {
        for i in 1..100_000 {
            let x = f64::from(i) * 0.37;
            let (sin, cos) = sin_cos64(x);
            assert!((sin - x.sin()).abs() < 1e-13 && (cos - x.cos()).abs() < 1e-13, "{x}");
            assert!((ln64(x) - x.ln()).abs() <= 1e-15 * x.ln().abs().max(1.0), "ln {x}");
            let x = f64::from(i) * 0.006 - 300.0;
            assert!((exp64(x) / x.exp() - 1.0).abs() < 1e-14, "exp {x}");
        }
        let (sin, cos) = sin_cos64(131_071.0);
        assert!((sin - 131_071f64.sin()).abs() < 1e-11 && (cos - 131_071f64.cos()).abs() < 1e-11);
    }
}
