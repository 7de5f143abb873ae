//! `Device`: a GPU with its kernels, compiled and loaded when first needed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::{Cache, checksum};
use super::context::Context;
use super::driver::{DeviceInfo, probe};
use super::module::{Kernel, Module};
use super::nvrtc;
use super::sources::{KernelSource, PixelKind, compile_options};
use crate::error::{Error, Result};

/// A GPU and its loaded kernels.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) context: Arc<Context>,
    architecture: i32,
    cache: Cache,
    modules: Mutex<HashMap<(KernelSource, PixelKind), Arc<Module>>>,
}

impl Device {
    /// Device number `ordinal`; compiled kernels are kept in the folder `cache` if there is one. The first call for a
    /// device decides about the folder.
    pub(super) fn open(ordinal: usize, cache: Option<PathBuf>) -> Result<Arc<Self>> {
        static OPEN: Mutex<Vec<Arc<Device>>> = Mutex::new(Vec::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = open.iter().find(|device| device.info().ordinal == ordinal) {
            return Ok(Arc::clone(device));
        }
        let (driver, compiler) = (probe()?, nvrtc::version()?);
        if driver.0 < compiler.0 {
            return Err(Error::CudaUnavailable {
                reason: format!(
                    "the NVIDIA driver supports CUDA {}.{}, too old for NVRTC {}.{}; install a newer driver, or NVRTC \
                     for CUDA {}: pip install nvidia-cuda-nvrtc-cu{}",
                    driver.0, driver.1, compiler.0, compiler.1, driver.0, driver.0
                ),
            });
        }
        let context = Context::new(ordinal)?;
        let architecture = nvrtc::architecture(context.info.capability)?;
        let device = Arc::new(Self { context, architecture, cache: Cache::new(cache), modules: Mutex::default() });
        open.push(Arc::clone(&device));
        Ok(device)
    }

    /// What the device is.
    pub(super) fn info(&self) -> &DeviceInfo {
        &self.context.info
    }

    /// A kernel, compiled and loaded if necessary.
    pub(super) fn kernel(&self, source: KernelSource, pixels: PixelKind, name: &str) -> Result<Kernel> {
        let module = self.module(source, pixels)?;
        let kernel = module.kernel(format!("{name}_{}", source.suffix(pixels)))?;
        if source.has_workspace() {
            module.allow_shared(&kernel, self.info().shared_bytes_per_block)?;
        }
        Ok(kernel)
    }

    fn module(&self, source: KernelSource, pixels: PixelKind) -> Result<Arc<Module>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(&(source, pixels)) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(self.load(source, pixels)?);
        modules.insert((source, pixels), Arc::clone(&module));
        Ok(module)
    }

    /// Loads a module from the cache or, where that has none that the driver takes, compiles it.
    fn load(&self, source: KernelSource, pixels: PixelKind) -> Result<Module> {
        let (text, options) = (source.text(pixels), compile_options(self.architecture));
        let (major, minor) = nvrtc::version()?;
        let (name, suffix) = (source.name(), source.suffix(pixels));
        let sum = checksum(format!("{options:?}{text}").as_bytes());
        let key = format!("{name}-{suffix}-sm_{}-nvrtc_{major}.{minor}-{sum:016x}", self.architecture);
        if let Some(cubin) = self.cache.get(&key)
            && let Ok(module) = Module::load(&self.context, &cubin, &name)
        {
            return Ok(module);
        }
        let cubin = nvrtc::compile(&text, &format!("{name}.cu"), &options).map_err(|reason| Error::Cuda {
            what: format!("compiling the kernels of {name}_{suffix}"),
            device: self.info().ordinal,
            reason,
        })?;
        self.cache.put(&key, &cubin);
        Module::load(&self.context, &cubin, &name)
    }
}
