CREATE TABLE "replicas" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"start_time" timestamp with time zone DEFAULT now() NOT NULL,
	"beat_time" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "boot_id" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "session" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "replica_id" uuid;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "lease_end_time" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "execution_queue" ADD COLUMN "replica_id" uuid;--> statement-breakpoint
CREATE INDEX "agents_of_replica" ON "agents" USING btree ("replica_id");--> statement-breakpoint
CREATE INDEX "agents_leaving" ON "agents" USING btree ("lease_end_time") WHERE lease_end_time IS NOT NULL;