//! From the tokens of one answer to its parts: text, reasoning, calls and their arguments.
//!
//! The parts do not depend on how the answer was cut into tokens, marks that are tokens apart: what is told
//! token by token, put together, is what the whole answer has.

use super::harmony::Harmony;
use super::marks::{Scanner, Symbol};
use super::reader::{Part, Parts, Place};
use super::tagged::Tagged;
use woolly_engine::tokenizer::{Detokenizer, Tokenizer};

/// Reads one answer.
#[derive(Debug)]
pub struct Parser {
    scanner: Scanner,
    machine: Machine,
    parts: Parts,
    /// An answer ends with its first call.
    one_call: bool,
}

#[derive(Debug)]
pub(super) enum Machine {
    Tagged(Box<Tagged>),
    Harmony(Harmony),
}

impl Machine {
    fn push(&mut self, symbol: Symbol<'_>, parts: &mut Parts) {
        match self {
            Machine::Tagged(machine) => machine.push(symbol, parts),
            Machine::Harmony(machine) => machine.push(symbol, parts),
        }
    }

    fn thinks(&self) -> bool {
        match self {
            Machine::Tagged(machine) => machine.thinks(),
            Machine::Harmony(machine) => machine.thinks(),
        }
    }
}

/// What a token is, and adds.
#[derive(Debug)]
pub struct Read {
    /// In order; neighbours are of different kinds.
    pub parts: Vec<Part>,
    /// What the token is part of.
    pub place: Place,
    /// The model thinks with it.
    pub is_thinking: bool,
    /// The answer ends here: it may have one call, and has it.
    pub ends: bool,
}

impl Parser {
    pub(super) fn new(scanner: Scanner, machine: Machine, one_call: bool) -> Parser {
        Parser { scanner, machine, parts: Parts::default(), one_call }
    }

    /// Takes the next token, which is none that ends the answer.
    pub fn push(
        &mut self,
        detokenizer: &mut Detokenizer,
        tokenizer: &Tokenizer,
        token: u32,
    ) -> Read {
        let thought = self.machine.thinks();
        let (machine, parts) = (&mut self.machine, &mut self.parts);
        let one_call = self.one_call;
        self.scanner.push(detokenizer, tokenizer, token, &mut |symbol| {
            if !(one_call && parts.complete > 0) {
                machine.push(symbol, parts);
            }
        });
        let is_thinking = thought || self.machine.thinks();
        self.read(is_thinking)
    }

    /// Takes a piece of text, wherever it was cut.
    #[cfg(test)]
    pub(super) fn push_piece(&mut self, piece: &str) -> Read {
        let (machine, parts) = (&mut self.machine, &mut self.parts);
        self.scanner.text(piece, &mut |symbol| machine.push(symbol, parts));
        let is_thinking = self.machine.thinks();
        self.read(is_thinking)
    }

    /// The end of the answer: what was held back.
    pub fn finish(&mut self, detokenizer: &mut Detokenizer) -> Read {
        let (machine, parts) = (&mut self.machine, &mut self.parts);
        self.scanner.finish(detokenizer, &mut |symbol| machine.push(symbol, parts));
        if let Machine::Tagged(machine) = &mut self.machine {
            machine.finish(&mut self.parts);
        }
        self.read(false)
    }

    fn read(&mut self, is_thinking: bool) -> Read {
        let place = match &self.machine {
            Machine::Tagged(machine) => machine.place(),
            Machine::Harmony(machine) => machine.place(),
        };
        let place = match place {
            Place::Text if self.scanner.holds() => Place::InDoubt,
            place => place,
        };
        let parts = std::mem::take(&mut self.parts.list);
        Read { parts, place, is_thinking, ends: self.one_call && self.parts.complete > 0 }
    }
}
