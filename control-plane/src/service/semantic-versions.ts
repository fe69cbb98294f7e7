import { HarrierError } from '@harrier/shared';
import semver from 'semver';
import { refuseNul } from './storable.ts';

/** @param field of the request that it stands in. @throws HarrierError invalid_argument */
export function checkVersion(version: string, field: string): void {
  if (semver.valid(version) === version.split('+')[0]) return;
  throw new HarrierError('invalid_argument', `${field} "${version}" is not a semantic version like 1.4.0`, {
    field,
  });
}

/** As in semantic versioning; builds of the same version by their text, so that the order is total. */
export function compareVersions(a: string, b: string): number {
  return semver.compareBuild(a, b);
}

/** The greatest release, or the greatest pre-release when there is no release. */
export function latestOf(versions: string[]): string | undefined {
  const sorted = versions.toSorted((a, b) => compareVersions(b, a));
  return sorted.find((version) => semver.prerelease(version) === null) ?? sorted[0];
}

/** What names a version in a request. @throws HarrierError invalid_argument */
export function checkLookup(name: string, version: string, nameField = 'name'): void {
  refuseNul(nameField, name);
  if (version !== '' && semver.valid(version) === null) {
    throw new HarrierError('invalid_argument', `version "${version}" is not a semantic version like 1.4.0`, {
      field: 'version',
    });
  }
}

/** A filter that may be left out. @throws HarrierError invalid_argument */
export function optionalText(text: string, field: string): string | undefined {
  refuseNul(field, text);
  return text === '' ? undefined : text;
}
