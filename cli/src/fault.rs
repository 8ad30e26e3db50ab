//! What went wrong, in the user's words, and the exit code that scripts see.

use std::fmt;

/// Exit codes, stable: documented in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Internal = 1,
    Usage = 2,
    Contact = 3,
    NotReached = 4,
    Refused = 5,
    Busy = 7,
    Store = 8,
}

impl Code {
    pub(crate) fn from_number(number: u64) -> Self {
        match number {
            2 => Self::Usage,
            3 => Self::Contact,
            4 => Self::NotReached,
            5 => Self::Refused,
            7 => Self::Busy,
            8 => Self::Store,
            _ => Self::Internal,
        }
    }
}

/// An error that ends a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub(crate) fn internal(message: impl fmt::Display) -> Self {
        Self::new(Code::Internal, message)
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
