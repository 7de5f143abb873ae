//! `Device`: a GPU with its kernels, compiled and loaded when first needed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::{Cache, checksum};
use super::driver::{Context, DeviceInfo, Kernel, Module};
use super::nvrtc;
use crate::error::{Error, Result};

/// What is compiled together: the kernels of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Square windows, for images no wider than a warp, or for all.
    Square {
        /// Whether images are no wider than a warp.
        narrow: bool,
    },
    /// Masks.
    Masks,
    /// The full window.
    Full,
    /// What lies around the passes.
    Posterior,
    /// Small sigma.
    Candidates,
}

/// What a stored pixel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelKind {
    /// Bytes.
    U8,
    /// Floats.
    F32,
}

const COMMON: &str = include_str!("kernels/common.cu");

impl Source {
    /// Every source, so that all can be compiled and looked at.
    pub const ALL: [Self; 6] = [
        Self::Square { narrow: true },
        Self::Square { narrow: false },
        Self::Masks,
        Self::Full,
        Self::Posterior,
        Self::Candidates,
    ];

    /// What messages and files call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Square { narrow: true } => "square_narrow",
            Self::Square { narrow: false } => "square_wide",
            Self::Masks => "masks",
            Self::Full => "full",
            Self::Posterior => "posterior",
            Self::Candidates => "candidates",
        }
    }

    /// What the names of its kernels end in.
    fn suffix(self, pixels: PixelKind) -> &'static str {
        match (pixels, self) {
            (PixelKind::U8, Self::Square { narrow: true }) => "u8_narrow",
            (PixelKind::U8, Self::Square { narrow: false }) => "u8_wide",
            (PixelKind::U8, _) => "u8",
            (PixelKind::F32, Self::Square { narrow: true }) => "f32_narrow",
            (PixelKind::F32, Self::Square { narrow: false }) => "f32_wide",
            (PixelKind::F32, _) => "f32",
        }
    }

    /// The text that is compiled for one kind of pixels.
    #[must_use]
    pub fn text(self, pixels: PixelKind) -> String {
        let own = match self {
            Self::Square { .. } => include_str!("kernels/square.cu"),
            Self::Masks => include_str!("kernels/masks.cu"),
            Self::Full => include_str!("kernels/full.cu"),
            Self::Posterior => include_str!("kernels/posterior.cu"),
            Self::Candidates => include_str!("kernels/candidates.cu"),
        };
        let pixel = match pixels {
            PixelKind::U8 => "unsigned char",
            PixelKind::F32 => "float",
        };
        let narrow = self == Self::Square { narrow: true };
        let suffix = self.suffix(pixels);
        format!(
            "#define PIXEL {pixel}\n#define NARROW {narrow}\n#define NAMED(name) name##_{suffix}\n\
             #line 1 \"common.cu\"\n{COMMON}\n#line 1 \"{}.cu\"\n{own}",
            self.name()
        )
    }
}

/// How NVRTC compiles: products are fused only where the text says so, as on the CPU.
#[must_use]
pub fn options(architecture: i32) -> Vec<String> {
    vec![format!("--gpu-architecture=sm_{architecture}"), "--std=c++17".to_owned(), "--fmad=false".to_owned()]
}

/// A GPU and its loaded kernels.
#[derive(Debug)]
pub struct Device {
    pub(super) context: Arc<Context>,
    architecture: i32,
    cache: Cache,
    modules: Mutex<HashMap<(Source, PixelKind), Arc<Module>>>,
}

impl Device {
    /// Device number `ordinal`; compiled kernels are kept in the folder `cache` where one is given. The first call for a
    /// device decides about the folder.
    pub fn open(ordinal: usize, cache: Option<PathBuf>) -> Result<Arc<Self>> {
        static OPEN: Mutex<Vec<Arc<Device>>> = Mutex::new(Vec::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = open.iter().find(|device| device.info().ordinal == ordinal) {
            return Ok(Arc::clone(device));
        }
        let driver = super::driver::probe()?;
        let compiler = nvrtc::version()?;
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
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.context.info
    }

    /// A kernel, compiled and loaded if it has to be.
    pub(super) fn kernel(&self, source: Source, pixels: PixelKind, name: &str) -> Result<Kernel> {
        let module = self.module(source, pixels)?;
        let kernel = module.kernel(format!("{name}_{}", source.suffix(pixels)))?;
        if matches!(source, Source::Square { .. } | Source::Masks) {
            module.allow_shared(&kernel, self.info().shared)?;
        }
        Ok(kernel)
    }

    fn module(&self, source: Source, pixels: PixelKind) -> Result<Arc<Module>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(&(source, pixels)) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(self.load(source, pixels)?);
        modules.insert((source, pixels), Arc::clone(&module));
        Ok(module)
    }

    fn load(&self, source: Source, pixels: PixelKind) -> Result<Module> {
        let (text, options) = (source.text(pixels), options(self.architecture));
        let (major, minor) = nvrtc::version()?;
        let (name, suffix) = (source.name(), source.suffix(pixels));
        let sum = checksum(format!("{options:?}{text}").as_bytes());
        let key = format!("{name}-{suffix}-sm_{}-nvrtc_{major}.{minor}-{sum:016x}", self.architecture);
        if let Some(cubin) = self.cache.get(&key)
            && let Ok(module) = Module::load(&self.context, &cubin, name)
        {
            return Ok(module);
        }
        let cubin = nvrtc::compile(&text, &format!("{name}.cu"), &options).map_err(|reason| Error::Cuda {
            what: format!("compiling the kernels of {name}_{suffix}"),
            device: self.info().ordinal,
            reason,
        })?;
        self.cache.put(&key, &cubin);
        Module::load(&self.context, &cubin, name)
    }
}
