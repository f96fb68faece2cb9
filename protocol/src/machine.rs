//! Which machine a process runs on: the same answers in every process of one machine.

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
    let mut hasher = blake3::Hasher::new_derive_key("woolly machine id 1");
    hasher.update(boot.as_bytes());
    hasher.update(&[0]);
    hasher.update(system_id().unwrap_or_default().as_bytes());
    hasher.finalize_xof().fill(&mut id);
    id
}

/// The same for all processes of one machine, also after it was booted again; zeros where the system has no
/// machine id. Copies of one disk image have the same.
///
/// A hash of the machine's id with a salt of ours, so that the id itself is never told.
pub fn host_id() -> [u8; 16] {
    system_id().map_or([0; 16], |id| host_of(&id))
}

fn host_of(system_id: &str) -> [u8; 16] {
    let mut id = [0; 16];
    let mut hasher = blake3::Hasher::new_derive_key("woolly host id 1");
    hasher.update(system_id.as_bytes());
    hasher.finalize_xof().fill(&mut id);
    id
}

fn system_id() -> Option<String> {
    read_id("/etc/machine-id").or_else(|| read_id("/var/lib/dbus/machine-id"))
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
    fn a_host_is_told_by_a_hash_of_its_id_alone() {
        // Nothing of the boot is in it: it is the same after the next one.
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(host_of(id), host_of(id));
        assert_ne!(host_of(id), host_of("1123456789abcdef0123456789abcdef"));
        assert_ne!(host_of(id), *blake3::hash(id.as_bytes()).as_bytes().first_chunk().unwrap());
        assert_eq!(host_id() == [0; 16], system_id().is_none());
    }

    #[test]
    fn the_machine_is_the_same_twice() {
        assert_ne!(machine_id(), [0; 16]);
        if read_id("/proc/sys/kernel/random/boot_id").is_some() {
            assert_eq!(machine_id(), machine_id());
        }
    }
}
