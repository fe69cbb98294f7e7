CREATE TABLE "event_readers" (
	"name" text PRIMARY KEY NOT NULL,
	"xid" "xid8" NOT NULL,
	"id" bigint NOT NULL,
	"update_time" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "events" (
	"xid" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	"id" bigint GENERATED ALWAYS AS IDENTITY (sequence name "events_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"tenant_id" uuid NOT NULL,
	"time" timestamp with time zone DEFAULT now() NOT NULL,
	"type" text NOT NULL,
	"execution_id" uuid,
	"attempt" integer,
	"agent_id" uuid,
	"state" smallint,
	"error_code" smallint,
	"data" jsonb,
	CONSTRAINT "events_xid_id_pk" PRIMARY KEY("xid","id")
);
--> statement-breakpoint
ALTER TABLE "executions" ADD COLUMN "start_recorded" boolean;--> statement-breakpoint
ALTER TABLE "executions" ADD COLUMN "log_delete_time" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "execution_retention_days" integer;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "log_retention_days" integer;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "max_stored_bytes" bigint;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "max_queued" integer;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "max_per_second" double precision;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "stored_bytes" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
-- Rows of the queue live for moments: it is vacuumed by their number, not by its share, so that claims never wade through dead ones.
ALTER TABLE "execution_queue" SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);--> statement-breakpoint
-- What retention deletes is a small share of these at any time.
ALTER TABLE "events" SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);--> statement-breakpoint
ALTER TABLE "log_chunks" SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);--> statement-breakpoint
ALTER TABLE "executions" SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
