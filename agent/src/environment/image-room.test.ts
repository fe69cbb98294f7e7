import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { whyNoRoomForImages } from './image-room.ts';

test('a disk with less than what stays free has no room for images', () => {
  const directory = tempDir();
  expect(whyNoRoomForImages(directory, 0)).toBeUndefined();
  const why = whyNoRoomForImages(directory, Number.MAX_SAFE_INTEGER);
  expect(why).toMatch(new RegExp(`^\\d+ MiB free of 8589934591 MiB needed on the disk of ${directory}$`));
});

test('of a disk that cannot be seen nothing is said', () => {
  expect(whyNoRoomForImages(join(tempDir(), 'none'), Number.MAX_SAFE_INTEGER)).toBeUndefined();
});
