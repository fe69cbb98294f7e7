CREATE TABLE "agents" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"name" text NOT NULL,
	"public_key" "bytea" NOT NULL,
	"labels" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"version" text NOT NULL,
	"hardware" "bytea" NOT NULL,
	"isolation" smallint NOT NULL,
	"slots" integer NOT NULL,
	"drain_requested" boolean DEFAULT false NOT NULL,
	"instance_id" text DEFAULT '' NOT NULL,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	"link_time" timestamp with time zone,
	"last_seen_time" timestamp with time zone,
	CONSTRAINT "agents_public_key_unique" UNIQUE("public_key")
);
--> statement-breakpoint
CREATE TABLE "api_keys" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"name" text NOT NULL,
	"role" smallint NOT NULL,
	"secret_hash" "bytea" NOT NULL,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	"expire_time" timestamp with time zone,
	CONSTRAINT "api_keys_secret_hash_unique" UNIQUE("secret_hash")
);
--> statement-breakpoint
CREATE TABLE "attempts" (
	"tenant_id" uuid NOT NULL,
	"execution_id" uuid NOT NULL,
	"attempt" integer NOT NULL,
	"agent_id" uuid,
	"state" smallint NOT NULL,
	"error_code" smallint,
	"error_message" text,
	"error_details" text,
	"exit_code" integer,
	"stdout_bytes" bigint,
	"stderr_bytes" bigint,
	"assign_time" timestamp with time zone,
	"start_time" timestamp with time zone,
	"end_time" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "attempts_tenant_id_execution_id_attempt_pk" PRIMARY KEY("tenant_id","execution_id","attempt")
);
--> statement-breakpoint
CREATE TABLE "execution_queue" (
	"execution_id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"task_class" text NOT NULL,
	"priority" integer NOT NULL,
	"not_before" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "executions" (
	"id" uuid NOT NULL,
	"tenant_id" uuid NOT NULL,
	"state" smallint NOT NULL,
	"attempt" integer DEFAULT 0 NOT NULL,
	"failures" integer DEFAULT 0 NOT NULL,
	"agent_id" uuid,
	"module_id" uuid,
	"module" text,
	"version" text,
	"task_class" text NOT NULL,
	"labels" jsonb,
	"priority" integer NOT NULL,
	"request" "bytea" NOT NULL,
	"input_json" text NOT NULL,
	"json_text" boolean NOT NULL,
	"idempotency_key" text,
	"output_json" text,
	"error_code" smallint,
	"error_message" text,
	"error_details" text,
	"exit_code" integer,
	"stdout_tail" text,
	"stderr_tail" text,
	"stdout_bytes" bigint,
	"stderr_bytes" bigint,
	"stdout_truncated" boolean,
	"stderr_truncated" boolean,
	"cpu_ms" double precision,
	"max_rss_bytes" bigint,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	"queue_time" timestamp with time zone DEFAULT now() NOT NULL,
	"assign_time" timestamp with time zone,
	"start_time" timestamp with time zone,
	"end_time" timestamp with time zone,
	"prepare_ms" double precision,
	"run_ms" double precision,
	"cancel_reason" text,
	CONSTRAINT "executions_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "join_tokens" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"secret_hash" "bytea" NOT NULL,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	"expire_time" timestamp with time zone NOT NULL,
	"agent_id" uuid,
	CONSTRAINT "join_tokens_secret_hash_unique" UNIQUE("secret_hash")
);
--> statement-breakpoint
CREATE TABLE "log_chunks" (
	"tenant_id" uuid NOT NULL,
	"execution_id" uuid NOT NULL,
	"attempt" integer NOT NULL,
	"stream" smallint NOT NULL,
	"byte_offset" bigint NOT NULL,
	"data" "bytea" NOT NULL,
	CONSTRAINT "log_chunks_execution_id_attempt_stream_byte_offset_pk" PRIMARY KEY("execution_id","attempt","stream","byte_offset")
);
--> statement-breakpoint
CREATE TABLE "modules" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"name" text NOT NULL,
	"version" text NOT NULL,
	"environment" text NOT NULL,
	"tags" text[] NOT NULL,
	"digest" text NOT NULL,
	"source" smallint NOT NULL,
	"definition" "bytea" NOT NULL,
	"latest" boolean NOT NULL,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	"delete_time" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "tenants" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "tenants_name_unique" UNIQUE("name")
);
--> statement-breakpoint
ALTER TABLE "agents" ADD CONSTRAINT "agents_tenant_id_tenants_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_tenant_id_tenants_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "join_tokens" ADD CONSTRAINT "join_tokens_tenant_id_tenants_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "modules" ADD CONSTRAINT "modules_tenant_id_tenants_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "agents_by_name" ON "agents" USING btree ("tenant_id","name","id");--> statement-breakpoint
CREATE INDEX "execution_queue_order" ON "execution_queue" USING btree ("priority" DESC NULLS FIRST,"execution_id");--> statement-breakpoint
CREATE INDEX "execution_queue_due" ON "execution_queue" USING btree ("not_before");--> statement-breakpoint
CREATE UNIQUE INDEX "executions_idempotency" ON "executions" USING btree ("tenant_id","idempotency_key") WHERE idempotency_key IS NOT NULL;--> statement-breakpoint
CREATE INDEX "executions_active" ON "executions" USING btree ("agent_id") WHERE agent_id IS NOT NULL AND end_time IS NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "modules_by_version" ON "modules" USING btree ("tenant_id","name","version") WHERE delete_time IS NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "modules_latest" ON "modules" USING btree ("tenant_id","name") WHERE delete_time IS NULL AND latest;--> statement-breakpoint
-- Log bytes are stored as they are: compressing them would cost more time than the disk saves.
ALTER TABLE "log_chunks" ALTER COLUMN "data" SET STORAGE EXTERNAL;
