import { create, equals } from '@bufbuild/protobuf';
import type { ManagedService } from '@harrier/shared/gen/agent';
import { type ManagedServices, ManagedServicesSchema } from '@harrier/shared/gen/link';

/** The services as they are, and what the control plane was told of them. */
export class ToldServices {
  readonly #reports: () => ManagedService[];
  readonly #onChange: () => void;
  #told: ManagedServices | undefined;

  /** @param onChange they are no longer what was told; asks for `tellChange` */
  constructor(reports: () => ManagedService[], onChange: () => void) {
    this.#reports = reports;
    this.#onChange = onChange;
  }

  /** All of them, and takes them as told. */
  tell(): ManagedServices {
    this.#told = this.#now();
    return this.#told;
  }

  /** All of them when they differ from what was told last. */
  tellChange(): ManagedServices | undefined {
    return this.#isTold() ? undefined : this.tell();
  }

  /** They may have changed. */
  changed(): void {
    if (this.#told !== undefined && !this.#isTold()) this.#onChange();
  }

  #isTold(): boolean {
    return this.#told !== undefined && equals(ManagedServicesSchema, this.#told, this.#now());
  }

  #now(): ManagedServices {
    return create(ManagedServicesSchema, { services: this.#reports() });
  }
}
