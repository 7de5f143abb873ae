//! The one place where engine errors become Python exceptions.

use pyo3::PyErr;
use pyo3::import_exception;

use crate::error::Error;

import_exception!(pspc_rs.errors, CoverageError);
import_exception!(pspc_rs.errors, CudaError);
import_exception!(pspc_rs.errors, DTypeError);
import_exception!(pspc_rs.errors, DataError);
import_exception!(pspc_rs.errors, InvalidValueError);
import_exception!(pspc_rs.errors, MissingDependencyError);
import_exception!(pspc_rs.errors, OutOfMemoryError);
import_exception!(pspc_rs.errors, PspcError);
import_exception!(pspc_rs.errors, ShapeError);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Shape { .. } => ShapeError::new_err(text),
            Error::Empty { .. } | Error::ImageChanged { .. } => DataError::new_err(text),
            Error::Pixel { .. }
            | Error::Sigma { .. }
            | Error::WindowSide { .. }
            | Error::EmptyMask { .. }
            | Error::ImageIndex { .. }
            | Error::NoAtoms { .. }
            | Error::LogShare { .. }
            | Error::LogPrior { .. }
            | Error::Weight { .. }
            | Error::Threads { .. }
            | Error::ThreadsVariable { .. }
            | Error::IsaVariable { .. } => InvalidValueError::new_err(text),
            Error::Uncovered { .. } => CoverageError::new_err(text),
            Error::CudaUnavailable { .. } | Error::Cuda { .. } => CudaError::new_err(text),
            Error::CudaCompilerMissing { .. } => MissingDependencyError::new_err(text),
            Error::Memory { .. } => OutOfMemoryError::new_err(text),
            Error::NotFinite | Error::Stopped => PspcError::new_err(text),
        }
    }
}
