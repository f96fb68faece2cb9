//! A row's result is what its experts give it alone, one after the other, to the bit.

use super::*;
use crate::invariance::{Random, weights};
use crate::kernels::Level;
use crate::kernels::activations::Forms;
use crate::kernels::elementwise::{Activation, gated};
use crate::kernels::matmul::{Product, matmul};
use crate::kernels::routing::{Gating, Router};

const EXPERTS: usize = 7;
const USED: usize = 3;
const HIDDEN: usize = 512;
const WIDTH: usize = 256;
const SCALE: f32 = 0.5;
const ROUTER: Router =
    Router { gating: Gating::Softmax, groups: None, is_normalised: true, scale: 1.0 };

/// A layer's experts, and rows for them.
struct Case {
    types: [TensorType; 2],
    /// Gate, up, down.
    stacks: [Vec<u8>; 3],
    biases: [Vec<f32>; 2],
    rows: usize,
    x: Vec<f32>,
    scores: Vec<f32>,
    shared: Vec<f32>,
    factors: Vec<f32>,
}

impl Case {
    fn new([inner, last]: [TensorType; 2], rows: usize) -> Case {
        let mut random = Random(5);
        let len = (EXPERTS * HIDDEN * WIDTH) as u64;
        let stacks = [inner, inner, last].map(|ty| weights(&mut random, ty, len, 0.1));
        let mut values = |len: usize| (0..len).map(|_| random.value()).collect::<Vec<f32>>();
        let x = values(rows * HIDDEN);
        // Every row goes to the first expert, so that it has more rows than the others.
        let mut scores = values(rows * EXPERTS);
        scores.chunks_mut(EXPERTS).for_each(|scores| scores[0] += 2.0);
        let biases = [values(EXPERTS * WIDTH), values(EXPERTS * HIDDEN)];
        let (shared, factors) = (values(rows * HIDDEN), values(rows));
        Case { types: [inner, last], stacks, biases, rows, x, scores, shared, factors }
    }

    fn stack(&self, index: usize) -> Stack<'_> {
        let (rows, cols) = if index < 2 { (WIDTH, HIDDEN) } else { (HIDDEN, WIDTH) };
        let ty = self.types[index / 2];
        Stack { ty, rows, cols, bytes: &self.stacks[index] }
    }

    fn routes(&self, pool: &Pool) -> Routes {
        let mut routes = Routes::new(self.rows, USED, EXPERTS);
        let scores = &mut self.scores.clone();
        routes.choose(pool, &ROUTER, (EXPERTS, USED), (scores, None));
        routes
    }

    fn forms(&self) -> [Forms; 2] {
        self.types.map(Forms::of)
    }

    /// All rows together.
    fn together(&self, pool: &Pool) -> Vec<f32> {
        let [first, last] = self.forms();
        let (rows, places) = (self.rows, self.rows * USED);
        let routes = self.routes(pool);
        let mut input = Activations::new(rows, HIDDEN, first);
        input.fill(pool, (rows, HIDDEN), first, &|row, columns, out| {
            out.copy_from_slice(&self.x[row * HIDDEN..][columns]);
        });
        let mut sorted = Activations::new(places, HIDDEN, first.or(last));
        sorted.poison();
        let (mut gate, mut up) = (vec![f32::NAN; places * WIDTH], vec![f32::NAN; places * WIDTH]);
        let products = [(0, &mut gate), (1, &mut up)].map(|(index, out)| ExpertProduct {
            stack: self.stack(index),
            bias: (index == 1).then_some(&*self.biases[0]),
            out,
        });
        if rows == 1 {
            by_expert(pool, &input, &routes, products);
        } else {
            sorted.gather(pool, &input, (routes.sources(), routes.groups()), first);
            by_expert(pool, &sorted, &routes, products);
        }
        sorted.fill_groups(pool, (routes.groups(), WIDTH), last, &|place, columns, out| {
            let at = place * WIDTH + columns.start..place * WIDTH + columns.end;
            gated(pool.level(), Activation::Silu, &gate[at.clone()], &up[at], out);
        });
        let mut out = self.x.clone();
        let combined = Combined {
            stack: self.stack(2),
            bias: Some(&self.biases[1]),
            beside: Some((&self.shared, Some(&self.factors))),
            scale: SCALE,
            out: &mut out,
        };
        combine(pool, &sorted, &routes, combined);
        out
    }

    /// Products of one expert with one row, alone.
    fn product(&self, pool: &Pool, which: usize, expert: usize, x: &[f32]) -> Vec<f32> {
        let stack = self.stack(which);
        let forms = Forms::of(stack.ty);
        let mut input = Activations::new(1, x.len(), forms);
        input.fill(pool, (1, x.len()), forms, &|_, columns, out| out.copy_from_slice(&x[columns]));
        let mut out = vec![f32::NAN; stack.rows];
        let bias =
            (which > 0).then(|| &self.biases[which - 1][expert * stack.rows..][..stack.rows]);
        let product = Product { bias, ..Product::new(stack.matrix(expert), &mut out) };
        matmul(pool, &input, [product]);
        out
    }

    /// Row by row and expert by expert.
    fn apart(&self, pool: &Pool) -> Vec<f32> {
        let routes = self.routes(pool);
        let mut out = self.x.clone();
        for (row, out) in out.chunks_mut(HIDDEN).enumerate() {
            let x = &self.x[row * HIDDEN..][..HIDDEN];
            let mut sum = vec![0.0f32; HIDDEN];
            let (chosen, (_, factors)) = (routes.chosen(row), routes.of_row(row));
            assert_eq!(chosen.len(), USED);
            for (expert, factor) in chosen.iter().zip(factors) {
                let [gate, up] = [0, 1].map(|which| self.product(pool, which, *expert as usize, x));
                let mut inner = vec![0.0; WIDTH];
                gated(pool.level(), Activation::Silu, &gate, &up, &mut inner);
                let products = self.product(pool, 2, *expert as usize, &inner);
                for (sum, product) in sum.iter_mut().zip(products) {
                    *sum = product.mul_add(*factor, *sum);
                }
            }
            let shared = &self.shared[row * HIDDEN..][..HIDDEN];
            for ((out, sum), shared) in out.iter_mut().zip(sum).zip(shared) {
                *out = shared.mul_add(self.factors[row], sum).mul_add(SCALE, *out);
            }
        }
        out
    }
}

#[test]
fn rows_together_get_what_each_gets_alone() {
    use TensorType::{F16, F32, Q4_K, Q5_1, Q6_K, Q8_0};
    for types in [[Q4_K, Q6_K], [Q8_0, Q5_1], [F32, F16], [Q6_K, Q8_0]] {
        // One row; a few; so many that the first expert's weights are unpacked, in two tiles.
        for rows in [1, 2, 5, 37] {
            let case = Case::new(types, rows);
            let run = |level: Level, threads: usize, is_apart: bool| {
                std::thread::scope(|scope| {
                    let run = || {
                        let pool = Pool::with_level(threads, level);
                        if is_apart { case.apart(&pool) } else { case.together(&pool) }
                    };
                    scope.spawn(run).join().expect("the kernels do not panic")
                })
            };
            let expected = run(Level::SCALAR, 1, true);
            assert!(expected.iter().all(|x| x.is_finite()));
            for level in Level::available() {
                for threads in [1, 2, 3] {
                    let found = run(level, threads, false);
                    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
                    let first = found.iter().zip(&expected).position(differs);
                    assert_eq!(first, None, "{types:?}, {rows} rows, {level:?}, {threads} threads");
                }
            }
        }
    }
}
