//! Which versions of the two APIs are spoken.

use coracle_cnb::ApiVersion;

/// The first and the last Platform API that is spoken, and all between.
pub(crate) const PLATFORM_APIS: (ApiVersion, ApiVersion) = (ApiVersion::new(0, 7), ApiVersion::new(0, 15));

/// Since this Platform API bills of materials are files in known formats.
pub(crate) const SBOM_FILES: ApiVersion = ApiVersion::new(0, 8);

/// Since this Platform API the unstructured bill of materials is a file beside those, and an image may say when it was made.
pub(crate) const LEGACY_BOM_FILES: ApiVersion = ApiVersion::new(0, 9);

/// Since this Platform API a process' command is a list.
pub(crate) const COMMAND_LISTS: ApiVersion = ApiVersion::new(0, 10);

/// Since this Platform API images have bills of materials of the lifecycle's own programs.
pub(crate) const OWN_BILLS: ApiVersion = ApiVersion::new(0, 11);

/// Since this Platform API there are targets instead of stacks.
pub(crate) const TARGETS: ApiVersion = ApiVersion::new(0, 12);

/// Until this Platform API platforms had to say that they know that extensions are an experiment. Since then what extensions
/// leave stays in a folder for each.
pub(crate) const EXTENSIONS_KEEP_FOLDERS: ApiVersion = ApiVersion::new(0, 13);

/// Since this Platform API the restorer looks again whether the run image may be read.
pub(crate) const RUN_IMAGE_IS_CHECKED: ApiVersion = ApiVersion::new(0, 14);

/// Since this Platform API layers come back that only the cache knows.
pub(crate) const CACHE_ALONE: ApiVersion = ApiVersion::new(0, 14);

/// Since this Platform API there are execution environments, and buildpacks around those of every group.
pub const EXECUTION_ENVIRONMENTS: ApiVersion = ApiVersion::new(0, 15);

/// Since this Buildpack API buildpacks know of execution environments.
pub(crate) const BUILDPACK_EXECUTION_ENVIRONMENTS: ApiVersion = ApiVersion::new(0, 12);

/// The Buildpack APIs of the buildpacks that can be run.
pub const BUILDPACK_APIS: [ApiVersion; 6] = [
    ApiVersion::new(0, 7),
    ApiVersion::new(0, 8),
    ApiVersion::new(0, 9),
    ApiVersion::new(0, 10),
    ApiVersion::new(0, 11),
    ApiVersion::new(0, 12),
];

/// The Platform APIs that are spoken, oldest first.
pub fn platform_apis() -> Vec<ApiVersion> {
    let (first, last) = PLATFORM_APIS;
    let all = (0..=u32::from(u8::MAX)).map(|minor| ApiVersion::new(0, minor));
    all.filter(|version| first <= *version && *version <= last).collect()
}

/// Whether a buildpack of this API can be run.
pub fn runs_buildpack_api(api: ApiVersion) -> bool {
    BUILDPACK_APIS.contains(&api)
}
