//! A device's context, its streams, and events on them.

use std::fmt::Display;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::driver::{DeviceInfo, devices, failure};
use crate::error::{Error, Result};

/// A device's primary context, the one that torch uses too. It is never released: other libraries share it.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) info: DeviceInfo,
    handle: sys::CUcontext,
    /// Whether memory can be allocated and freed in the order of a stream.
    pub(super) has_memory_pools: bool,
}

// SAFETY: the driver's context handles may be used from every thread.
unsafe impl Send for Context {}
// SAFETY: the driver's context handles may be used from several threads at once.
unsafe impl Sync for Context {}

impl Context {
    /// The context of device number `ordinal`.
    pub(super) fn new(ordinal: usize) -> Result<Arc<Self>> {
        let devices = devices()?;
        let Some(info) = devices.get(ordinal).cloned() else {
            let reason = format!("there is no GPU {ordinal}, this machine has {}", devices.len());
            return Err(Error::CudaUnavailable { reason });
        };
        let failed = |error| failure(&"starting the device", ordinal, error);
        let device = result::device::get(ordinal as i32).map_err(failed)?;
        // SAFETY: the device exists, and the context is retained until the process ends.
        let handle = unsafe { result::primary_ctx::retain(device) }.map_err(failed)?;
        let pools = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
        // SAFETY: the device exists.
        let has_memory_pools = unsafe { result::device::get_attribute(device, pools) }.map_err(failed)? > 0;
        Ok(Arc::new(Self { info, handle, has_memory_pools }))
    }

    /// Makes this the current context of the calling thread until the guard is dropped.
    pub(super) fn enter(&self) -> Result<CurrentContext> {
        let failed = |error| self.failure(&"switching to the device", error);
        let previous = result::ctx::get_current().map_err(failed)?;
        // SAFETY: the context was retained and is never released.
        unsafe { result::ctx::set_current(self.handle) }.map_err(failed)?;
        Ok(CurrentContext { previous: previous.unwrap_or(std::ptr::null_mut()) })
    }

    /// Bytes of memory that are free.
    pub(super) fn free_memory(&self) -> Result<usize> {
        let _current = self.enter()?;
        result::mem_get_info().map(|(free, _)| free).map_err(|error| self.failure(&"asking for free memory", error))
    }

    /// The error of a driver call on this device.
    pub(super) fn failure(&self, what: &dyn Display, error: DriverError) -> Error {
        failure(what, self.info.ordinal, error)
    }
}

/// Keeps a context current in the calling thread; dropping it restores the previous one.
pub(super) struct CurrentContext {
    previous: sys::CUcontext,
}

impl Drop for CurrentContext {
    fn drop(&mut self) {
        // SAFETY: this was the thread's context before, or null for none.
        let _ = unsafe { result::ctx::set_current(self.previous) };
    }
}

/// A stream of a context: work queued on it runs in order. Its creator owns the handle; null is the default stream.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) context: Arc<Context>,
    pub(super) handle: sys::CUstream,
}

// SAFETY: the driver's stream handles may be used from every thread.
unsafe impl Send for Stream {}
// SAFETY: the driver's stream handles may be used from several threads at once.
unsafe impl Sync for Stream {}

impl Stream {
    /// The stream of a handle; 0 is the default stream.
    ///
    /// # Safety
    /// The handle lives as long as this and belongs to the context.
    pub(super) unsafe fn from_handle(context: &Arc<Context>, handle: usize) -> Self {
        Self { context: Arc::clone(context), handle: handle as sys::CUstream }
    }

    /// The default stream.
    pub(super) fn default_of(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), handle: std::ptr::null_mut() }
    }

    /// Waits until all queued work is done; `what` names that work in errors.
    pub(super) fn synchronize(&self, what: &dyn Display) -> Result<()> {
        let _current = self.context.enter()?;
        // SAFETY: the stream lives, by the promise of `from_handle`.
        unsafe { result::stream::synchronize(self.handle) }.map_err(|error| self.context.failure(what, error))
    }

    /// Records an event after all work queued so far.
    pub(super) fn record_event(&self) -> Result<Event> {
        let _current = self.context.enter()?;
        let failed = |error| self.context.failure(&"recording an event on the stream", error);
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let event = Event { context: Arc::clone(&self.context), handle: result::event::create(flags).map_err(failed)? };
        // SAFETY: both handles live and belong to the same context.
        unsafe { result::event::record(event.handle, self.handle) }.map_err(failed)?;
        Ok(event)
    }
}

/// A point in a stream's queue.
pub(super) struct Event {
    context: Arc<Context>,
    handle: sys::CUevent,
}

impl Event {
    /// Whether all work queued before it is done; `what` names that work in errors.
    pub(super) fn is_reached(&self, what: &dyn Display) -> Result<bool> {
        let _current = self.context.enter()?;
        // SAFETY: the event lives as long as this.
        match unsafe { result::event::query(self.handle) } {
            Ok(()) => Ok(true),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(self.context.failure(what, error)),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.enter() {
            // SAFETY: created in `record_event` and destroyed only here.
            let _ = unsafe { result::event::destroy(self.handle) };
        }
    }
}
