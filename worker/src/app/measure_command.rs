//! `measure`: what a worker measures of this machine when it joins, as lines for the file of machines that
//! `woolly-coordinator plan --workers` reads.

use crate::config::MeasureArgs;
use crate::counters::Counters;
use crate::machine::system::{host_name, memory_limit, threads_available};
use crate::stage::load::{Loader, Measured};
use crate::units::{show_rate, show_size};
use crate::weights::pages::{HugePages, Pages};
use std::io::Write;
use std::sync::Arc;
use woolly_protocol::check::name_from;

/// Measures and prints. It takes less than a second and reads no file.
///
/// # Errors
///
/// A sentence: the system does not say how much memory there is, or stdout is gone.
pub fn run(args: &MeasureArgs, out: &mut impl Write) -> Result<(), String> {
    let memory = memory_limit().or(args.memory);
    let memory = memory.ok_or("the system does not say how much memory there is: set --memory")?;
    let threads = args.threads.unwrap_or_else(threads_available);
    let all = measured(args, threads);
    let one = if threads == 1 { all } else { measured(args, 1) };
    let name = args.name.clone().unwrap_or_else(|| name_from(&host_name()));
    let text = lines(&name, (memory, args.memory), threads, (all, one));
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|why| why.to_string())
}

/// On a thread of its own: the threads of a pool are bound to CPUs as long as it lives.
fn measured(args: &MeasureArgs, threads: u32) -> Measured {
    let simd = args.simd;
    let measure = move || {
        let counters = Arc::new(Counters::default());
        let pages = Pages { huge_pages: HugePages::Auto, mlock: false };
        Loader::on_this_thread(threads, simd, pages, counters).measure()
    };
    match std::thread::spawn(measure).join() {
        Ok(measured) => measured,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn lines(
    name: &str,
    (memory, may_use): (u64, Option<u64>),
    threads: u32,
    (all, one): (Measured, Measured),
) -> String {
    // One thread is not faster than all, whatever disturbed one of the two measurements.
    let read = all.read_bytes_per_s.max(one.read_bytes_per_s);
    let may_use = may_use.map(|bytes| format!("may-use = {bytes}  # {}\n", show_size(bytes)));
    format!(
        "[[machine]]\nname = \"{name}\"\nmemory = {memory}  # {}\n{}threads = {threads}\n\
         read = \"{}\"\nread-1 = \"{}\"\nmultiply = \"{}\"\n",
        show_size(memory),
        may_use.unwrap_or_default(),
        show_rate(read, "B"),
        show_rate(one.read_bytes_per_s, "B"),
        show_rate(all.macs_per_s, "")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_stands_as_one_machine() {
        let of = |read, macs| Measured { read_bytes_per_s: read, macs_per_s: macs };
        let (all, one) = (of(41_230_000_000, 455_000_000_000), of(41_300_000_000, 230_000_000_000));
        let text = lines("desk", (64 << 30, Some(48 << 30)), 8, (all, one));
        let expected = "[[machine]]\nname = \"desk\"\nmemory = 68719476736  # 64 GiB\n\
                        may-use = 51539607552  # 48 GiB\nthreads = 8\nread = \"41.3 GB/s\"\n\
                        read-1 = \"41.3 GB/s\"\nmultiply = \"455 G/s\"\n";
        assert_eq!(text, expected);
    }
}
