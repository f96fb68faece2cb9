//! Which machine a process runs on: the same answer in every process of one machine.

use std::fs;

/// Bytes of an identity file that count.
const ID_BYTES_MAX: usize = 256;

/// The same for all processes of one machine until it boots again, and different elsewhere.
///
/// A hash of the machine's id and the boot's id: neither is revealed, and copies of one disk image
/// still differ. Where the system gives no boot id the answer is random, so that two processes are
/// never taken for neighbours by mistake: it only costs a fetch of what could have been shared.
pub fn machine_id() -> [u8; 16] {
    let mut id = [0; 16];
    let Some(boot) = read_id("/proc/sys/kernel/random/boot_id") else {
        getrandom::fill(&mut id).expect("the system's random generator works");
        return id;
    };
    let machine = read_id("/etc/machine-id").or_else(|| read_id("/var/lib/dbus/machine-id"));
    let mut hasher = blake3::Hasher::new_derive_key("woolly machine id 1");
    hasher.update(boot.as_bytes());
    hasher.update(&[0]);
    hasher.update(machine.unwrap_or_default().as_bytes());
    hasher.finalize_xof().fill(&mut id);
    id
}

fn read_id(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty() && text.len() <= ID_BYTES_MAX).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_the_same_twice() {
        assert_ne!(machine_id(), [0; 16]);
        if read_id("/proc/sys/kernel/random/boot_id").is_some() {
            assert_eq!(machine_id(), machine_id());
        }
    }
}
