//! How long a device is given work at once, and how fast it is.

use serde::Serialize;

/// The most that is given to the device at once, in estimated seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Budget {
    /// Of a dispatch; a longer one runs in parts.
    pub dispatch: f64,
    /// Of a submission.
    pub submission: f64,
}

/// How a device stands to its budget of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timekeeping {
    /// What it may be given at once.
    pub budget: Budget,
    /// The most that it was given, by estimate.
    pub longest: Budget,
    /// How many times longer dispatches need than at the adapter's [`Speed`].
    pub slowness: f64,
}

/// What an adapter does a second, as measured on it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Floating-point operations in multiply-adds of 32 bits.
    pub flops: f64,
    /// Bytes read and written by a copy.
    pub bytes: f64,
}
