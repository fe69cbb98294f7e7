/**
 * How long the texts of an environment may be. The control plane refuses what is longer, and every agent again: it reads them
 * for each call, also for one whose environment is there.
 */
export const ENVIRONMENT_BOUNDS = {
  /** One requirement, with its marker; one dependency or channel of conda, one further index. */
  requirementChars: 4_096,
  /** All requirements, dependencies, channels or further indexes, together. */
  requirementsChars: 256 * 1024,
  /** A thousand packages with forty hashes each. */
  lockChars: 2 * 1024 * 1024,
  pyprojectChars: 256 * 1024,
  /** An environment.yml. */
  condaFileChars: 32 * 1024,
  /** A version, or the path of an interpreter. */
  pythonChars: 1_024,
  urlChars: 4_096,
} as const;
