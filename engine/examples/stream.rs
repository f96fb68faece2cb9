use std::time::Instant;
use woolly_engine::huge::Buffer;
use woolly_engine::kernels::Level;
use woolly_engine::kernels::activations::*;
use woolly_engine::kernels::matmul::*;
use woolly_engine::pool::Pool;
use woolly_engine::quant::TensorType;
fn main() {
    let level = Level::best();
    let limit = woolly_engine::probe::Probe::new(1, 1 << 30).unwrap().measure();
    println!("probe 1 thread {:.1}", limit.read_bytes_per_s / 1e9);
    for threads in [1, 2] {
        let pool = Pool::with_level(threads, level);
        for (ty, rows, cols) in [
            (TensorType::Q4_K, 200_000, 4096),
            (TensorType::Q4_K, 400_000, 1536),
            (TensorType::Q6_K, 100_000, 4096),
            (TensorType::Q4_1, 800_000, 576),
        ] {
            let mut bytes: Buffer<u8> = Buffer::new(rows * ty.row_bytes(cols));
            for (i, b) in bytes.iter_mut().enumerate() {
                *b = (i * 7919 >> 3) as u8 & 0x3f;
            }
            for tokens in [1usize, 4] {
                let mut a = Activations::new(tokens, cols, Forms::of(ty));
                a.fill(
                    &pool,
                    (tokens, cols),
                    Forms::of(ty),
                    &|r, c: std::ops::Range<usize>, o: &mut [f32]| {
                        for (o, c) in o.iter_mut().zip(c) {
                            *o = ((r * 31 + c * 17) % 101) as f32 - 50.0
                        }
                    },
                );
                let mut out = vec![0.0; tokens * rows];
                print!("threads {threads} {:5} {cols:6} t{tokens}", ty.name());
                for _ in 0..2 {
                    let mut best = f64::MAX;
                    for _ in 0..5 {
                        let t = Instant::now();
                        pool.enter(|| {
                            matmul(
                                &pool,
                                &a,
                                [Product::new(Matrix { ty, rows, cols, bytes: &bytes }, &mut out)],
                            )
                        });
                        best = best.min(t.elapsed().as_secs_f64());
                    }
                    print!("  {:5.1}", bytes.len() as f64 / best / 1e9);
                }
                println!();
            }
        }
    }
    let limit = woolly_engine::probe::Probe::new(2, 1 << 30).unwrap().measure();
    println!("probe 2 thread {:.1}", limit.read_bytes_per_s / 1e9);
}
