//! What the applications say to each other: a question that the answer can be checked against, byte by byte.

use std::io::{self, Read, Write};

/// The length of a frame's head.
pub(crate) const HEAD: usize = 12;
/// No question is longer.
pub(crate) const LONGEST: u32 = 4 << 20;
/// Who asks when nobody may.
pub(crate) const STRANGER: u32 = u32::MAX;
/// What the application turns every byte with, so that nothing that comes back by itself is taken for an answer.
pub(crate) const TURN: u8 = 0xA5;

/// A question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// Who asks.
    pub(crate) client: u32,
    /// Counts the client's questions.
    pub(crate) number: u32,
    /// How many bytes come after the head.
    pub(crate) length: u32,
}

impl Question {
    /// The question of a head.
    pub(crate) fn of(head: [u8; HEAD]) -> Self {
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        Self {
            client: number(0),
            number: number(4),
            length: number(8),
        }
    }

    /// Head and payload.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.length as usize);
        for number in [self.client, self.number, self.length] {
            bytes.extend(number.to_be_bytes());
        }
        // Nobody else's payload, and no other question's.
        let mut random = fastrand::Rng::with_seed((u64::from(self.client) << 32) | u64::from(self.number));
        bytes.resize(HEAD + self.length as usize, 0);
        random.fill(&mut bytes[HEAD..]);
        bytes
    }

    /// The only right answer.
    pub(crate) fn answer(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        turn(&mut bytes[HEAD..]);
        bytes
    }

    /// Asks, and reads the answer. `InvalidData` where it is wrong.
    pub(crate) fn ask(&self, mut stream: impl Read + Write) -> io::Result<()> {
        stream.write_all(&self.bytes())?;
        self.read_answer(stream)
    }

    /// Reads the answer to a question that was asked. `InvalidData` where it is wrong.
    pub(crate) fn read_answer(&self, mut stream: impl Read) -> io::Result<()> {
        let mut answer = vec![0; HEAD + self.length as usize];
        stream.read_exact(&mut answer)?;
        self.check(&answer)
    }

    /// `InvalidData` where the answer is wrong.
    pub(crate) fn check(&self, answer: &[u8]) -> io::Result<()> {
        if answer == self.answer() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the answer to {self:?} is wrong"),
        ))
    }
}

/// What the application does with a payload.
pub(crate) fn turn(payload: &mut [u8]) {
    for byte in payload {
        *byte ^= TURN;
    }
}
