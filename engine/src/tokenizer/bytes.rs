//! GPT-2's spelling of bytes: every byte is a printable character in the vocabulary's texts.

/// The character that stands for `byte` in a byte-level vocabulary.
pub(super) fn char_of(byte: u8) -> char {
    let code = u32::from(byte);
    let shifted = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => code,
        0..=b' ' => 0x100 + code,
        0x7f..=0xa0 => 0x121 + code - 0x7f,
        0xad => 0x143,
    };
    char::from_u32(shifted).expect("all values are below 0x144")
}

/// The byte that `character` stands for; `None` if it stands for none.
pub(super) fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Appends the bytes that `text` spells. A character that spells no byte (such texts occur only in
/// tokens that were added by hand) stands for its own UTF-8.
pub(super) fn decode_into(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let spelled: String = (0..=255).map(char_of).collect();
        let mut bytes = Vec::new();
        decode_into(&spelled, &mut bytes);
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        assert_eq!(char_of(0x7f), 'ġ');
        assert_eq!(char_of(0xad), 'Ń');
    }

    #[test]
    fn other_characters_stand_for_themselves() {
        let mut bytes = Vec::new();
        decode_into("a｜", &mut bytes);
        assert_eq!(bytes, "a｜".as_bytes());
    }
}
