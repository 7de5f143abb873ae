//! The engine's one error type. Every variant carries the value that was wrong and what is allowed.

/// Why a call was refused or stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An array has the wrong lengths.
    #[error("{what} has shape {found:?}; allowed is {expected}")]
    Shape {
        /// The argument.
        what: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// What is allowed, in words.
        expected: String,
    },
    /// The bank holds no image, or an axis has length zero.
    #[error("the data set is empty: shape {shape:?}; every axis must be at least 1")]
    Empty {
        /// The shape given.
        shape: Vec<usize>,
    },
    /// A pixel is NaN, infinite, or too large for the arithmetic.
    #[error("{what} holds {value} at {index:?}; allowed are finite numbers of magnitude up to {limit:e}")]
    Pixel {
        /// The argument.
        what: &'static str,
        /// The offending value.
        value: f64,
        /// Its position.
        index: Vec<usize>,
        /// The largest magnitude allowed.
        limit: f64,
    },
    /// A noise level is not a positive number the arithmetic can carry.
    #[error("sigma is {value:?}; allowed are numbers from {min:e} to {max:e}")]
    Sigma {
        /// The offending value.
        value: f64,
        /// The smallest sigma allowed.
        min: f64,
        /// The largest sigma allowed.
        max: f64,
    },
    /// A square window does not fit the image.
    #[error("the window side is {side}; allowed are sides from 1 to {largest} for images of {height} x {width}")]
    WindowSide {
        /// The side given.
        side: usize,
        /// The shorter side of the image.
        largest: usize,
        /// Image height.
        height: usize,
        /// Image width.
        width: usize,
    },
    /// A mask selects no pixel.
    #[error("mask {index} selects no pixel; every mask must select at least one")]
    EmptyMask {
        /// Its position in the list of masks.
        index: usize,
    },
    /// A pixel belongs to no mask, so that its denoised value is undefined.
    #[error("no mask covers {count} of the pixels, the first at row {y}, column {x}; every pixel must be covered")]
    Uncovered {
        /// How many pixels are uncovered.
        count: usize,
        /// Row of the first one.
        y: usize,
        /// Column of the first one.
        x: usize,
    },
    /// A weight of a component is not one.
    #[error("the rows hold {value} at {index:?}; allowed are finite numbers from 0 on")]
    Weight {
        /// The offending value.
        value: f64,
        /// Its position.
        index: Vec<usize>,
    },
    /// An image that does not exist, or a list of images that is not in order.
    #[error("{what} holds image {index}; allowed is {expected}")]
    ImageIndex {
        /// The argument.
        what: &'static str,
        /// The offending index.
        index: usize,
        /// What is allowed, in words.
        expected: String,
    },
    /// No image counts for a query.
    #[error("no image is left for query {query}; at least one has to count")]
    NoAtoms {
        /// Its position in the batch.
        query: usize,
    },
    /// The log prior of an image is not a number the arithmetic can carry.
    #[error("the log prior of image {index} is {value}; allowed are numbers of magnitude up to {limit:e}")]
    LogPrior {
        /// The image.
        index: usize,
        /// Its value.
        value: f64,
        /// The largest magnitude allowed.
        limit: f64,
    },
    /// A share of one of several ranks is none.
    #[error("the logarithm of a share is {value} at {index:?}; allowed are numbers up to zero, and -inf")]
    LogShare {
        /// The offending value.
        value: f64,
        /// Its query and component.
        index: [usize; 2],
    },
    /// The thread pool cannot be built.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// The number asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
    /// The environment variable for the number of threads holds something else.
    #[error("PSPC_NUM_THREADS is {value:?}; allowed are integers from 1 to {most}")]
    ThreadsVariable {
        /// What the variable holds.
        value: String,
        /// The largest number allowed.
        most: usize,
    },
    /// A GPU was asked for and cannot be used on this machine.
    #[error("CUDA cannot be used: {reason}")]
    CudaUnavailable {
        /// What is missing or too old, and what to do about it.
        reason: String,
    },
    /// The run-time compiler of CUDA is not installed.
    #[error("CUDA cannot be used: {reason}")]
    CudaCompilerMissing {
        /// What is missing, and what to install.
        reason: String,
    },
    /// Something failed on the GPU.
    #[error("{what} failed on GPU {device}: {reason}")]
    Cuda {
        /// The kernel or the step.
        what: String,
        /// Number of the device.
        device: usize,
        /// What the driver or the compiler said.
        reason: String,
    },
    /// The environment variable for the instruction set names one that this CPU lacks.
    #[error("PSPC_ISA is {value:?}; allowed on this CPU are {allowed}")]
    IsaVariable {
        /// What the variable holds.
        value: String,
        /// The names it may hold.
        allowed: String,
    },
    /// The result is not finite: the images changed under a running call.
    #[error("the result is not finite: the images were changed while they were in use, or hold NaN or infinite pixels")]
    NotFinite,
    /// A pixel of the images is not what it was when the data set was checked.
    #[error(
        "image {index} was changed after the data set was made: it now holds {value}, and the pixels were from {least} to \
         {most}; make the data set again"
    )]
    ImageChanged {
        /// Index of the image.
        index: usize,
        /// A pixel that lies outside the range of all pixels before, or NaN.
        value: f64,
        /// The least pixel allowed.
        least: f64,
        /// The largest pixel allowed.
        most: f64,
    },
    /// The working space of a call does not fit into memory.
    #[error(
        "the engine needs about {needed} MiB for images of this size and cannot have them: {reason}; use fewer threads \
         (set_num_threads), fewer queries at once, or smaller images"
    )]
    Memory {
        /// MiB that one thread and the results take.
        needed: usize,
        /// What the system said.
        reason: String,
    },
    /// The monitor asked to stop.
    #[error("stopped by the caller")]
    Stopped,
}

/// The engine's result type.
pub type Result<T> = std::result::Result<T, Error>;
